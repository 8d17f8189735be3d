FROM base
COPY a.txt /x
