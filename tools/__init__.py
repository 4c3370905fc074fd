"""Commands that are no stages: export, import, images as files, one page to send, tables."""
