"""Stage `page`: what the other stages wrote, as one page."""
