printf x > "$(printf 'context/\377\376')"
