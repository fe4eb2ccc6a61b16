"""Alerts: alarms that reach people, as messages to a webhook of Slack's form.

`alert` says what an alert is, and which kinds there are; `slack` makes its message; a store (`alert_store` on this
host, `storage.alert_store` in production) sends each kind and subject once an hour; `sender` delivers.
"""
