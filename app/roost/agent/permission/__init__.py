"""What a call needs the user's word for (`policy`), who is asked (`asking`), what was allowed (`allowed`)."""
