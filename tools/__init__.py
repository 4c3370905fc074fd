"""Commands that are no stages: export, import, one page to send, tables."""
