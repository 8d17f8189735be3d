//! A server with S3's protocol of a test's own: moto, from the Python package index.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that ends with the test.
pub struct Bucketeer {
    child: Child,
    /// `host:port`.
    pub address: String,
}

impl Drop for Bucketeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bucketeer {
    /// Starts one with the bucket `blobs`; without the program the test is skipped, or fails where everything is
    /// required.
    pub fn start() -> Option<Bucketeer> {
        let program = std::env::var("CTK_TEST_MOTO").unwrap_or_else(|_| "moto_server".into());
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(&program).exists()) {
            assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs moto_server");
            println!("skipped: needs moto_server (a server with S3's protocol)");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Bucketeer { child: command.spawn().unwrap(), address: format!("127.0.0.1:{port}") };
        let address = &server.address;
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(_) => assert!(Instant::now() < deadline, "moto_server does not start"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        write!(stream, "PUT /blobs HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
        Some(server)
    }
}
