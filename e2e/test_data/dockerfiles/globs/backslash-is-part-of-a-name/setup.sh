mkdir -p context
printf star > "context/a*b"
printf both > "context/a\\*b"
