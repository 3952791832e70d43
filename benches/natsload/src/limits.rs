//! What this machine can do at all: loopback TCP, memory, disk. And a null server, to see what the
//! generator itself can do.
use crate::meter::{hist, Row};
use crate::opts::Opts;
use crate::sys::{mono, pin, thread_cpu_ns, Res, Rng};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::io::AsRawFd;

fn pair() -> Res<(TcpStream, TcpStream)> {
    let e = |e: std::io::Error| e.to_string();
    let l = TcpListener::bind("127.0.0.1:0").map_err(e)?;
    let a = TcpStream::connect(l.local_addr().map_err(e)?).map_err(e)?;
    let (b, _) = l.accept().map_err(e)?;
    a.set_nodelay(true).ok();
    b.set_nodelay(true).ok();
    Ok((a, b))
}

/// One core writes so many bytes at a time, the other reads.
fn tcp(o: &Opts, chunk: usize) -> Res<()> {
    let (mut w, mut r) = pair()?;
    let ns = (o.f64("secs", 3.0) * 1e9) as u64;
    let (sc, gc) = (o.num("server-core", 0) as usize, o.num("core", 1) as usize);
    let t = std::thread::spawn(move || {
        pin(sc);
        let mut b = vec![0; 256 * 1024];
        let (mut n, c0, t0) = (0u64, thread_cpu_ns(), mono());
        while let Ok(k) = r.read(&mut b) {
            if k == 0 {
                break;
            }
            n += k as u64;
        }
        (n, thread_cpu_ns() - c0, mono() - t0)
    });
    pin(gc);
    let b = vec![7; chunk];
    let (t0, c0) = (mono(), thread_cpu_ns());
    while mono() - t0 < ns {
        w.write_all(&b).map_err(|e| e.to_string())?;
    }
    let wc = thread_cpu_ns() - c0;
    drop(w);
    let (n, rc, t) = t.join().map_err(|_| "reader died")?;
    Row::new(&format!(
        "ref-tcp-{}",
        if chunk >= 1024 { format!("{}k", chunk / 1024) } else { chunk.to_string() }
    ))
    .num("mb_per_s", n as f64 / (t as f64 / 1e9) / 1e6)
    .num("writer_cpu_ns_per_kb", wc as f64 / (n as f64 / 1024.0))
    .num("reader_cpu_ns_per_kb", rc as f64 / (n as f64 / 1024.0))
    .num("mb_per_writer_cpu_s", n as f64 / (wc as f64 / 1e9) / 1e6)
    .num("mb_per_reader_cpu_s", n as f64 / (rc as f64 / 1e9) / 1e6)
    .num("writer_busy", wc as f64 / t as f64)
    .num("reader_busy", rc as f64 / t as f64)
    .main("mb_per_s", "MB/s", true)
    .print();
    Ok(())
}

/// 64 bytes there and back; the near side spins or sleeps, the far side sleeps in read.
fn pingpong(o: &Opts, spin: bool, far_spin: bool) -> Res<()> {
    let (mut a, mut b) = pair()?;
    let ns = (o.f64("secs", 3.0) * 1e9) as u64;
    let (sc, gc) = (o.num("server-core", 0) as usize, o.num("core", 1) as usize);
    if far_spin {
        b.set_nonblocking(true).ok();
    }
    let t = std::thread::spawn(move || {
        pin(sc);
        let c0 = thread_cpu_ns();
        let mut m = [0; 64];
        loop {
            match b.read(&mut m) {
                Ok(0) => break,
                Ok(n) => {
                    if b.write_all(&m[..n]).is_err() {
                        break;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            }
        }
        thread_cpu_ns() - c0
    });
    pin(gc);
    a.set_nonblocking(spin).ok();
    let mut h = hist();
    let mut m = [1; 64];
    let t0 = mono();
    loop {
        let x = mono();
        if x - t0 > ns {
            break;
        }
        a.write_all(&m).map_err(|e| e.to_string())?;
        let mut n = 0;
        while n < 64 {
            match a.read(&mut m[n..]) {
                Ok(0) => return Err("closed".into()),
                Ok(k) => n += k,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        h.record(mono() - x).ok();
    }
    a.shutdown(std::net::Shutdown::Both).ok();
    let c = t.join().map_err(|_| "echo died")?;
    let name = match (spin, far_spin) {
        (false, _) => "ref-pingpong-sleep",
        (true, false) => "ref-pingpong-spin",
        _ => "ref-pingpong-spin-both",
    };
    Row::new(name)
        .num("msgs_per_s", h.len() as f64 / (ns as f64 / 1e9))
        .num("far_cpu_ns_per_msg", c as f64 / h.len() as f64)
        .lat(&h)
        .main("p50_us", "us p50", false)
        .print();
    Ok(())
}

fn memory(o: &Opts) -> Res<()> {
    pin(o.num("core", 1) as usize);
    for (name, size) in [("ref-memcpy-64m", 64usize << 20), ("ref-memcpy-256k", 256 << 10)] {
        let a = vec![1u8; size];
        let mut b = vec![2u8; size];
        let (t0, c0) = (mono(), thread_cpu_ns());
        let mut n = 0u64;
        while mono() - t0 < 1_000_000_000 {
            b.copy_from_slice(std::hint::black_box(&a));
            std::hint::black_box(&mut b);
            n += size as u64;
        }
        // by CPU time, which others on the core are not in
        let s = (thread_cpu_ns() - c0) as f64 / 1e9;
        Row::new(name)
            .num("mb_per_s", n as f64 / s / 1e6)
            .main("mb_per_s", "MB copied per CPU s", true)
            .print();
    }
    Ok(())
}

fn disk(o: &Opts) -> Res<()> {
    let e = |e: std::io::Error| e.to_string();
    let dir = o.str("dir", &std::env::temp_dir().to_string_lossy());
    let path = format!("{dir}/natsload-disk.{}", std::process::id());
    let mut b = vec![0u8; 1 << 20];
    Rng(1).fill(&mut b);
    let total = o.num("bytes", 1 << 30);
    let mut f = File::create(&path).map_err(e)?;
    let t0 = mono();
    for _ in 0..total >> 20 {
        f.write_all(&b).map_err(e)?;
    }
    let t1 = mono();
    unsafe { libc::fdatasync(f.as_raw_fd()) };
    let t2 = mono();
    Row::new("ref-disk-seq")
        .num("mb_per_s", total as f64 / ((t2 - t0) as f64 / 1e9) / 1e6)
        .num("to_page_cache_mb_per_s", total as f64 / ((t1 - t0) as f64 / 1e9) / 1e6)
        .main("mb_per_s", "MB/s with fdatasync at the end", true)
        .print();
    drop(f);
    std::fs::remove_file(&path).map_err(e)?;
    // a small append and fdatasync: the file grows, so its size is written too
    let n = o.num("syncs", 3000);
    let mut f = File::create(&path).map_err(e)?;
    let mut h = hist();
    let t0 = mono();
    for _ in 0..n {
        let t = mono();
        f.write_all(&b[..256]).map_err(e)?;
        unsafe { libc::fdatasync(f.as_raw_fd()) };
        h.record(mono() - t).ok();
    }
    let s = (mono() - t0) as f64 / 1e9;
    Row::new("ref-fdatasync-append")
        .num("msgs_per_s", n as f64 / s)
        .lat(&h)
        .main("p50_us", "us p50", false)
        .print();
    drop(f);
    // the same into space that is already written: only data, no size
    let mut f = File::create(&path).map_err(e)?;
    for _ in 0..16 {
        f.write_all(&b).map_err(e)?;
    }
    f.sync_all().map_err(e)?;
    let mut h = hist();
    let t0 = mono();
    for i in 0..n {
        let t = mono();
        unsafe {
            libc::pwrite(f.as_raw_fd(), b.as_ptr() as *const libc::c_void, 4096, (i as i64 % 4096) * 4096);
            libc::fdatasync(f.as_raw_fd())
        };
        h.record(mono() - t).ok();
    }
    let s = (mono() - t0) as f64 / 1e9;
    Row::new("ref-fdatasync-overwrite")
        .num("msgs_per_s", n as f64 / s)
        .lat(&h)
        .main("p50_us", "us p50", false)
        .print();
    drop(f);
    std::fs::remove_file(&path).map_err(e)?;
    // four files synced at the same time
    let t0 = mono();
    let ts: Vec<_> = (0..4)
        .map(|k| {
            let p = format!("{path}.{k}");
            std::thread::spawn(move || {
                let mut f = File::create(&p).unwrap();
                for _ in 0..n / 4 {
                    f.write_all(&[7; 256]).unwrap();
                    unsafe { libc::fdatasync(f.as_raw_fd()) };
                }
                std::fs::remove_file(&p).ok();
            })
        })
        .collect();
    for t in ts {
        t.join().map_err(|_| "a writer died")?;
    }
    let s = (mono() - t0) as f64 / 1e9;
    Row::new("ref-fdatasync-4files")
        .num("msgs_per_s", (n / 4 * 4) as f64 / s)
        .main("msgs_per_s", "sync/s", true)
        .print();
    Ok(())
}

pub fn all(o: &Opts) -> Res<()> {
    tcp(o, 64 * 1024)?;
    tcp(o, 1024)?;
    tcp(o, 128)?;
    pingpong(o, false, false)?;
    pingpong(o, true, false)?;
    pingpong(o, true, true)?;
    memory(o)?;
    disk(o)
}

/// Takes anything and answers PING; `SUB null.<size>.<…>` makes it send MSG frames of that size as
/// fast as the socket takes them. Bounded: it ends after --secs.
pub fn nullserver(o: &Opts) -> Res<()> {
    let l = TcpListener::bind(&o.addrs()[0]).map_err(|e| e.to_string())?;
    let end = mono() + (o.f64("secs", 60.0) * 1e9) as u64;
    l.set_nonblocking(true).map_err(|e| e.to_string())?;
    while mono() < end {
        match l.accept() {
            Ok((s, _)) => {
                s.set_nonblocking(false).ok();
                s.set_read_timeout(Some(std::time::Duration::from_secs(60))).ok();
                std::thread::spawn(move || null_conn(s));
            }
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    Ok(())
}

fn null_conn(mut s: TcpStream) {
    let _ = s.set_nodelay(true);
    if s.write_all(b"INFO {\"server_id\":\"null\",\"server_name\":\"null\",\"version\":\"0\",\"proto\":1,\"headers\":true,\"max_payload\":1048576}\r\n").is_err() {
        return;
    }
    let mut b = vec![0; 256 * 1024];
    let mut blast = None;
    let mut tail: Vec<u8> = vec![];
    while let Ok(n) = s.read(&mut b) {
        if n == 0 {
            return;
        }
        if let Some(i) = crate::sys::memmem(&b[..n.min(512)], b"SUB null.") {
            let t = String::from_utf8_lossy(&b[i + 9..n.min(i + 40)]).to_string();
            blast = t.split(|c: char| !c.is_ascii_digit()).next().and_then(|x| x.parse::<usize>().ok());
        }
        // the PING that ends a run may come in two pieces
        tail.extend_from_slice(&b[n.saturating_sub(6)..n]);
        tail.drain(..tail.len().saturating_sub(6));
        if tail == b"PING\r\n" {
            tail.clear();
            if s.write_all(b"PONG\r\n").is_err() {
                return;
            }
        }
        if let Some(size) = blast {
            let mut f = format!("MSG null.x 1 {size}\r\n").into_bytes();
            f.resize(f.len() + size, b'x');
            f.extend_from_slice(b"\r\n");
            let k = (256 * 1024 / f.len()).max(1);
            let all = f.repeat(k);
            while s.write_all(&all).is_ok() {}
            return;
        }
    }
}

/// How fast the generator receives from a server that only sends: the ceiling of its counting parser.
pub fn gen_recv(o: &Opts) -> Res<()> {
    let size = o.num("size", 128);
    let mut c = crate::conn::Conn::open(o, &o.addrs()[0])?;
    c.sub(&format!("null.{size}.x"), "", 1);
    c.wb.extend_from_slice(b"PING\r\n");
    c.flush()?;
    let mut n = crate::counter::Counter::default();
    let mut big = vec![0; 256 * 1024];
    let pids = o.pids();
    let a = crate::meter::sample(&pids);
    let ns = (o.f64("secs", 2.0) * 1e9) as u64;
    while mono() - a.t < ns {
        if !n.drain(c.fd, &mut big)? {
            crate::sys::poll1(c.fd, false, 20);
        }
    }
    let b = crate::meter::sample(&pids);
    let w = crate::meter::Window { a, b, pids };
    Row::new("gen-recv")
        .set("payload", size)
        .window(&w, n.msgs, n.msgs * size)
        .main("msgs_per_s", "msg/s", true)
        .print();
    Ok(())
}
