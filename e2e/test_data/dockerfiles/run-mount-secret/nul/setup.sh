printf 'topsecret\0x' > secret
