"""What a call needs the user's word for (`policy`), who is asked (`asking`, `runner`), what was allowed (`allowed`)."""
