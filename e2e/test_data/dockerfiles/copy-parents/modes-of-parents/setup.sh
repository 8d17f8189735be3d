chmod 700 context/src; chmod 2751 context/src/x
