echo h > context/h1; ln context/h1 context/h2; ln context/h1 context/dir/h3
