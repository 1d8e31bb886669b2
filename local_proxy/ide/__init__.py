"""What IDEs need to start programs inside a session: run configurations, and interpreters that are shims."""
