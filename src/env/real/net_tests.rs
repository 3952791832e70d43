use std::io::ErrorKind;

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let l = TcpListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let a = TcpStream::connect(l.local_addr().unwrap()).await.unwrap();
    let (b, peer) = l.accept().await.unwrap();
    assert_eq!(peer, a.local_addr().unwrap());
    (a, b.attach().unwrap())
}
async fn read(s: &TcpStream) -> io::Result<Vec<u8>> {
    let mut buf = Vec::with_capacity(4096);
    loop {
        s.readable().await?;
        match s.try_read_buf(&mut buf) {
            Ok(_) => return Ok(buf),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

#[test]
fn half_close_and_end() {
    crate::run(async {
        let (a, b) = pair().await;
        assert_eq!(a.peer_addr().unwrap(), b.local_addr().unwrap());
        a.writable().await.unwrap();
        assert_eq!(a.try_write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), 3);
        a.shutdown_write().unwrap();
        assert_eq!(read(&b).await.unwrap(), b"abc");
        assert_eq!(read(&b).await.unwrap(), b"");
        assert_eq!(b.try_write(b"still open").unwrap(), 10);
        assert_eq!(read(&a).await.unwrap(), b"still open");
        // An end of both directions wakes whoever reads.
        b.shutdown().unwrap();
        assert_eq!(read(&b).await.unwrap(), b"");
    })
    .unwrap();
}

#[test]
fn a_full_stream_would_block_and_a_reset_is_an_error() {
    crate::run(async {
        let (a, b) = pair().await;
        let chunk = vec![0; 1 << 20];
        let full = loop {
            if let Err(e) = a.try_write(&chunk) {
                break e.kind();
            }
        };
        assert_eq!(full, ErrorKind::WouldBlock);
        b.reset_on_close().unwrap();
        drop(b);
        assert_eq!(read(&a).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let l = TcpListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = l.local_addr().unwrap();
        drop(l);
        assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(resolve("[::1]", 4222).await.unwrap()[0].is_ipv6());
    })
    .unwrap();
}

#[test]
fn interfaces_have_addresses() {
    let all = interface_addresses().unwrap();
    assert!(all.iter().any(|ip| ip.is_loopback()), "no loopback among {all:?}");
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len(), "twice in {all:?}");
}

#[test]
fn a_stream_moves_to_the_worker_that_attaches_it() {
    crate::run(async {
        let workers = crate::Workers::start(3).unwrap();
        let l = TcpListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = l.local_addr().unwrap();
        let serve = async move {
            let (s, _) = l.accept().await.unwrap();
            s
        };
        let (a, s) = tokio::join!(TcpStream::connect(addr), serve);
        let echo = workers.all()[2].spawn(async move {
            let s = s.attach().unwrap();
            let v = read(&s).await.unwrap();
            s.try_write(&v).unwrap();
            crate::current_worker()
        });
        let a = a.unwrap();
        a.try_write(b"x").unwrap();
        assert_eq!(read(&a).await.unwrap(), b"x");
        assert_eq!(echo.await.unwrap(), 2);
    })
    .unwrap();
}
