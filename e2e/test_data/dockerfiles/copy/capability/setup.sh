setcap cap_net_raw+ep context/tool
