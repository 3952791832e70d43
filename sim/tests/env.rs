//! The simulated environment itself: what the network, the disk and the clocks of a machine do, and that a run repeats.
#![cfg(madsim)]
// The helpers stand outside the test functions, where unwrap would be refused; the children are real processes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    future::Future,
    io::{ErrorKind, IoSlice},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use env::{
    disk::{Cause, Disk, Op, OpenOptions, Round, Thread, cause},
    net::{TcpListener, TcpStream, resolve},
    signal::{Signal, Signals},
    sim::{Config, Death, Link, Machine, Trace, Trigger, World, run, trace},
    simdisk::{Fault, Planned},
};
use sim::{config, real_var};
use tokio::sync::{mpsc, oneshot};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn simulate<F: Future>(seed: u64, f: impl FnOnce(World) -> F) -> F::Output {
    run(config(seed), f)
}
fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
/// Runs `f` as the machine's process and waits for its result.
async fn on<T: Send + 'static>(m: &Machine, f: impl Future<Output = T> + Send + 'static) -> T {
    let (tx, rx) = oneshot::channel();
    m.start(async move {
        tx.send(f.await).ok();
    });
    rx.await.expect("the process ran to its end")
}
async fn listen(port: u16) -> TcpStream {
    let l = TcpListener::bind(SocketAddr::new(ANY, port)).await.unwrap();
    l.accept().await.unwrap().0.attach().unwrap()
}
async fn read(s: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut buf = vec![0; 10_000];
    loop {
        s.readable().await?;
        match s.try_read(&mut buf) {
            Ok(n) => return Ok(buf[..n].to_vec()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}
async fn read_exact(s: &TcpStream, n: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < n {
        let more = read(s).await.unwrap();
        assert!(!more.is_empty(), "the stream ended after {} of {n} bytes", all.len());
        all.extend(more);
    }
    all
}
async fn write(s: &TcpStream, mut data: &[u8]) -> std::io::Result<()> {
    while !data.is_empty() {
        s.writable().await?;
        match s.try_write(data) {
            Ok(n) => data = &data[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[test]
fn e8_bytes_arrive_in_order_and_once() {
    for seed in 0..20 {
        simulate(seed, |w| async move {
            let (a, b) = (w.machine("a"), w.machine("b"));
            w.set_net(|o| {
                o.window = [1, 100, 10_000][seed as usize % 3];
                o.short = 0.5;
                o.link.loss = if seed % 2 == 0 { 0.05 } else { 0.0 };
            });
            let size = [300, 5_000, 200_000][seed as usize % 3];
            a.start(async move {
                let s = listen(4222).await;
                // Half close: the end of the one direction leaves the other open.
                let mut all = Vec::new();
                loop {
                    match read(&s).await.unwrap() {
                        v if v.is_empty() => break,
                        v => all.extend(v),
                    }
                }
                write(&s, &all).await.unwrap();
                s.shutdown_write().unwrap();
                assert_eq!(read(&s).await.unwrap(), b"");
            });
            on(&b, async move {
                let addr = resolve("a", 4222).await.unwrap()[0];
                let s = TcpStream::connect(addr).await.unwrap();
                assert_eq!(s.peer_addr().unwrap(), addr);
                let data = pattern(size);
                let (head, tail) = data.split_at(size / 3);
                write(&s, head).await.unwrap();
                let mut rest = tail;
                while !rest.is_empty() {
                    let (x, y) = rest.split_at(rest.len() / 2);
                    s.writable().await.unwrap();
                    match s.try_write_vectored(&[IoSlice::new(x), IoSlice::new(y)]) {
                        Ok(n) => rest = &rest[n..],
                        Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                    }
                }
                s.shutdown_write().unwrap();
                assert_eq!(s.try_write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
                assert!(read_exact(&s, size).await == data);
                assert_eq!(read(&s).await.unwrap(), b"");
            })
            .await;
        });
    }
}

#[test]
fn e9_a_writer_waits_for_a_reader_that_does_not_read() {
    simulate(1, |w| async move {
        let (a, b) = (w.machine("a"), w.machine("b"));
        w.set_net(|o| o.window = 10_000);
        let (go, mut gate) = mpsc::channel::<()>(1);
        a.start(async move {
            let s = listen(1).await;
            gate.recv().await;
            assert_eq!(read_exact(&s, 10_001).await.len(), 10_001);
        });
        on(&b, async move {
            let s = TcpStream::connect(resolve("a", 1).await.unwrap()[0]).await.unwrap();
            write(&s, &[1; 10_000]).await.unwrap();
            assert_eq!(s.try_write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
            assert!(env::timeout(secs(300), s.writable()).await.is_err());
            go.send(()).await.unwrap();
            write(&s, &[1; 1]).await.unwrap();
        })
        .await;
    });
}

#[test]
fn connecting_is_refused_unreachable_or_silent() {
    simulate(1, |w| async move {
        let (a, b) = (w.machine("a"), w.machine("b"));
        let (ip, w2, a2) = (a.ip(), w.clone(), a.clone());
        on(&b.clone(), async move {
            let begun = env::now();
            let to = |port| TcpStream::connect(SocketAddr::new(ip, port));
            assert_eq!(to(9).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            assert!(begun.elapsed() < Duration::from_millis(5));
            let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), 1);
            assert_eq!(TcpStream::connect(nowhere).await.unwrap_err().kind(), ErrorKind::HostUnreachable);
            let begun = env::now();
            w2.cut(&a2, &b);
            assert_eq!(to(9).await.unwrap_err().kind(), ErrorKind::TimedOut);
            assert!((62..=64).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
            w2.heal(&a2, &b);
            a2.kill(Death::Power);
            assert!(env::timeout(secs(30), to(9)).await.is_err());
            assert!(resolve("nobody", 1).await.is_err());
        })
        .await;
    });
}

#[test]
fn a_cut_holds_one_direction_until_it_heals() {
    simulate(3, |w| async move {
        let (a, b) = (w.machine("a"), w.machine("b"));
        let (tx, mut got) = mpsc::channel(10);
        a.start(async move {
            let s = listen(1).await;
            write(&s, b"hello").await.unwrap();
            tx.send(read_exact(&s, 3).await).await.unwrap();
            std::future::pending().await
        });
        let (w2, a2, b2) = (w.clone(), a.clone(), b.clone());
        on(&b, async move {
            let s = TcpStream::connect(resolve("a", 1).await.unwrap()[0]).await.unwrap();
            read_exact(&s, 5).await;
            // One way: from b to a nothing comes through, the other way it does.
            w2.cut(&b2, &a2);
            write(&s, b"abc").await.unwrap();
            assert!(env::timeout(secs(20), got.recv()).await.is_err());
            w2.heal(&b2, &a2);
            assert_eq!(got.recv().await.unwrap(), b"abc");
            // Nobody answers for longer than a writer waits.
            w2.part(&a2, &b2);
            write(&s, b"lost").await.unwrap();
            assert_eq!(read(&s).await.unwrap_err().kind(), ErrorKind::TimedOut);
        })
        .await;
    });
}

#[test]
fn links_have_latency_and_bandwidth() {
    simulate(4, |w| async move {
        let (a, b) = (w.machine("a"), w.machine("b"));
        let link =
            Link { latency_min_ns: 50_000_000, latency_max_ns: 60_000_000, loss: 0.0, bandwidth: 1_000_000 };
        w.set_link(&b, &a, Some(link));
        a.start(async move {
            let s = listen(1).await;
            read_exact(&s, 500_000).await;
            write(&s, b"k").await.unwrap();
            std::future::pending().await
        });
        on(&b, async move {
            let s = TcpStream::connect(resolve("a", 1).await.unwrap()[0]).await.unwrap();
            let begun = env::now();
            write(&s, &[0; 500_000]).await.unwrap();
            read_exact(&s, 1).await;
            let took = begun.elapsed().as_millis();
            assert!((550..700).contains(&took), "{took} ms");
        })
        .await;
    });
}

#[test]
fn a_killed_process_ends_or_resets_its_connections() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..30 {
        seen.insert(simulate(seed, |w| async move {
            let (a, b) = (w.machine("a"), w.machine("b"));
            a.start(async move {
                let _s = listen(1).await;
                std::future::pending().await
            });
            let a2 = a.clone();
            on(&b, async move {
                let s = TcpStream::connect(resolve("a", 1).await.unwrap()[0]).await.unwrap();
                env::sleep(Duration::from_millis(10)).await;
                a2.kill(Death::Process);
                let end = read(&s).await.map_err(|e| e.kind());
                // The kernel of the machine lives on and answers what comes for the dead.
                write(&s, b"x").await.ok();
                env::sleep(Duration::from_millis(10)).await;
                assert!(s.try_write(b"x").is_err());
                format!("{end:?}")
            })
            .await
        }));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["Err(ConnectionReset)", "Ok([])"]);
}

#[test]
fn lost_power_is_silent_and_a_reboot_resets_readers_too() {
    simulate(2, |w| async move {
        let (a, b) = (w.machine("a"), w.machine("b"));
        a.start(async move {
            let _s = listen(1).await;
            std::future::pending().await
        });
        let a2 = a.clone();
        on(&b, async move {
            let s = Arc::new(TcpStream::connect(resolve("a", 1).await.unwrap()[0]).await.unwrap());
            let reader = env::spawn({
                let s = s.clone();
                async move { read(&s).await.unwrap_err().kind() }
            });
            env::sleep(secs(1)).await;
            a2.kill(Death::Power);
            // A connection on which nothing is sent hears nothing, for ever.
            env::sleep(secs(600)).await;
            assert!(!reader.is_finished());
            write(&s, b"x").await.unwrap();
            env::sleep(secs(5)).await;
            assert!(!reader.is_finished());
            a2.start(std::future::pending());
            assert_eq!(reader.await.unwrap(), ErrorKind::ConnectionReset);
        })
        .await;
    });
}

#[test]
fn triggers_fire_at_an_exact_byte() {
    for (what, at) in [(Trigger::Cut, 777u64), (Trigger::Reset, 1234)] {
        simulate(5, |w| async move {
            let (a, b) = (w.machine("a"), w.machine("b"));
            let count = Arc::new(AtomicU64::new(0));
            let counted = count.clone();
            a.start(async move {
                let s = listen(1).await;
                while let Ok(v) = read(&s).await
                    && !v.is_empty()
                {
                    counted.fetch_add(v.len() as u64, Ordering::Relaxed);
                }
            });
            let (w2, a2, b2) = (w.clone(), a.clone(), b.clone());
            on(&b, async move {
                let s = TcpStream::connect(resolve("a", 1).await.unwrap()[0]).await.unwrap();
                w2.after_bytes(&b2, &a2, at, what);
                let sent = write(&s, &[0; 5000]).await;
                env::sleep(secs(10)).await;
                match what {
                    // What was on the way when the cut came is held with the rest.
                    Trigger::Cut => {
                        assert!(sent.is_ok() && count.load(Ordering::Relaxed) <= at);
                        w2.heal(&b2, &a2);
                        env::sleep(secs(30)).await;
                        assert_eq!(count.load(Ordering::Relaxed), 5000);
                    }
                    Trigger::Reset => {
                        assert_eq!(sent.unwrap_err().kind(), ErrorKind::ConnectionReset);
                        assert!(count.load(Ordering::Relaxed) <= at);
                    }
                }
            })
            .await;
        });
    }
}

#[test]
fn e1_page_cache_survives_a_process_but_not_the_power() {
    let mut lost = 0;
    for seed in 0..40 {
        lost += simulate(seed, |w| async move {
            let a = w.machine("a");
            on(&a, async {
                let disk = Disk::os();
                disk.create_dir_all("/data/js").await.unwrap();
                let f = disk.open("/data/js/f", OpenOptions::CREATE_NEW).await.unwrap();
                disk.sync_dir("/data/js").await.unwrap();
                f.write_at(0, Bytes::from_static(&[1; 512])).await.unwrap();
                f.sync_data().await.unwrap();
                f.write_at(512, Bytes::from_static(&[2; 512])).await.unwrap();
                disk.write_atomic("/data/meta", "state").await.unwrap();
            })
            .await;
            a.down().await;
            on(&a, async {
                assert_eq!(Disk::os().read("/data/js/f").await.unwrap().len(), 1024);
            })
            .await;
            a.kill(Death::Power);
            on(&a, async {
                let disk = Disk::os();
                assert_eq!(disk.read("/data/meta").await.unwrap(), b"state");
                let v = disk.read("/data/js/f").await.unwrap();
                assert_eq!(v[..512], [1; 512]);
                u32::from(v != [[1; 512], [2; 512]].concat())
            })
            .await
        });
    }
    assert!((5..40).contains(&lost), "{lost}");
}

#[test]
fn a_planned_crash_takes_the_machine_down() {
    simulate(1, |w| async move {
        let a = w.machine("a");
        a.disk(|d| d.plan(3, Planned::CrashAfter));
        a.start(async {
            let f = Disk::os().open("/f", OpenOptions::CREATE).await.unwrap();
            Disk::os().sync_dir("/").await.unwrap();
            f.write_at(0, "abc").await.unwrap();
            f.sync_all().await.unwrap();
            unreachable!("the power failed before the sync could answer");
        });
        a.down().await;
        // The sync had taken effect.
        assert_eq!(on(&a, async { Disk::os().read("/f").await.unwrap() }).await, b"abc");
    });
}

#[test]
fn e2_disk_faults_reach_the_program_as_errors() {
    simulate(1, |w| async move {
        let a = w.machine("a");
        let a2 = a.clone();
        on(&a, async move {
            let disk = Disk::os();
            let f = disk.open("/f", OpenOptions::CREATE).await.unwrap();
            f.allocate(0, 4096).await.unwrap();
            assert_eq!(cause(&f.read_at(0, 1).await.unwrap_err()), Some(Cause::NeverWritten));
            assert_eq!(f.scan_at(0, 2).await.unwrap(), [0, 0][..]);
            f.write_at(0, "x").await.unwrap();
            a2.disk(|d| d.options().rates.insert(Fault::SyncError, 1.0));
            let e = f.sync_data().await.unwrap_err();
            assert!(e.to_string().starts_with("sync /f: "), "{e}");
            assert_eq!(cause(&f.sync_data().await.unwrap_err()), Some(Cause::Poisoned));
            a2.disk(|d| d.options().rates.clear());
            let _held = disk.lock("/LOCK").await.unwrap();
            assert_eq!(disk.lock("/LOCK").await.unwrap_err().kind(), ErrorKind::WouldBlock);
            let g = disk.open("/g", OpenOptions::CREATE).await.unwrap();
            let t = Thread::start("journal").unwrap();
            let ops = vec![
                Op::Write {
                    file: g.clone(),
                    off: 0,
                    bufs: vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")],
                    cached: false,
                },
                Op::SyncData(g.clone()),
            ];
            t.submit(Round { ops }).await.unwrap();
            assert_eq!(g.read_exact_at(0, 3).await.unwrap(), "abc");
            assert_eq!(&g.map().await.unwrap()[..], b"abc");
            disk.create_dir_all("/d/e").await.unwrap();
            disk.write_atomic("/d/e/h", "1").await.unwrap();
            disk.remove_dir_all("/d").await.unwrap();
            assert!(!disk.exists("/d").await.unwrap());
            let s = disk.space("/").await.unwrap();
            assert!(s.free < s.total);
        })
        .await;
        // The lock went with its process.
        on(&a, async { Disk::os().lock("/LOCK").await.unwrap() }).await;
    });
}

#[test]
fn clocks_drift_and_jump_each_for_itself() {
    simulate(1, |w| async move {
        let (a, b) = (w.machine("a"), w.machine("b"));
        a.set_drift(100_000);
        let (w2, a2) = (w.clone(), a.clone());
        on(&a, async move {
            assert!(env::now().0 < 1_100_000_000, "a process's clock begins at its start");
            let (before, wall) = (w2.elapsed(), env::wall());
            env::sleep(secs(110)).await;
            let took = w2.elapsed() - before;
            assert!(took.abs_diff(secs(100)) < Duration::from_millis(1), "{took:?}");
            assert!(env::wall().since(wall).abs_diff(secs(110)) < Duration::from_millis(1));
            let mono = env::now();
            a2.jump_wall(-3_600_000_000_000);
            assert!(env::wall() < wall && mono.elapsed() < Duration::from_millis(1));
        })
        .await;
        let w2 = w.clone();
        on(&b, async move {
            assert!(env::wall().since(env::Wall(1_767_225_600_000_000_000)) < secs(200));
            // Far below the executor's own millisecond.
            let before = w2.elapsed();
            env::sleep(Duration::from_micros(20)).await;
            assert!(w2.elapsed() - before < Duration::from_micros(25));
        })
        .await;
    });
}

#[test]
fn processes_have_signals_workers_and_facts() {
    simulate(1, |w| async move {
        let a = w.machine("alpha");
        a.set_cores(3);
        a.set_args(vec!["-js".into()]);
        a.set_var("NATS_X", "1");
        let (tx, mut rx) = mpsc::channel(1);
        a.start(async move {
            assert_eq!(env::process::args(), ["-js"]);
            assert_eq!(
                (env::process::hostname(), env::process::var("NATS_X")),
                ("alpha".into(), Some("1".into()))
            );
            let workers = env::Workers::start(env::Workers::cores()).unwrap();
            let third =
                workers.all()[2].spawn(async { env::spawn(async { env::current_worker() }).await.unwrap() });
            assert_eq!((third.await.unwrap(), env::current_worker()), (2, 0));
            let mut s = Signals::listen().unwrap();
            env::signal::send(env::process::id(), Signal::User1).unwrap();
            assert_eq!(s.next().await, Signal::User1);
            tx.send(env::process::id()).await.unwrap();
            while s.next().await != Signal::Terminate {}
        });
        let pid = rx.recv().await.unwrap();
        a.pause();
        a.signal(Signal::Terminate);
        env::sleep(secs(10)).await;
        assert!(a.is_running());
        a.resume();
        a.down().await;
        assert_ne!(on(&a, async { env::process::id() }).await, pid);
        // Without a listener the signal ends the process.
        a.start(std::future::pending());
        a.signal(Signal::Hangup);
        assert!(!a.is_running());
    });
}

/// A small storm: a replicated counter that is killed, unplugged, partitioned and restarted.
fn storm(c: Config) -> Trace {
    let acked = run(c, |w| async move {
        let (server, client) = (w.machine("server"), w.machine("client"));
        w.set_net(|o| o.link.loss = 0.02);
        let serve = || async {
            let disk = Disk::os();
            disk.create_dir_all("/data").await.unwrap();
            let log = disk.open("/data/log", OpenOptions::CREATE).await.unwrap();
            disk.sync_dir("/data").await.unwrap();
            let l = TcpListener::bind(SocketAddr::new(ANY, 4222)).await.unwrap();
            loop {
                let s = l.accept().await.unwrap().0.attach().unwrap();
                let log = log.clone();
                env::spawn(async move {
                    while let Ok(v) = read(&s).await
                        && let Some(b) = v.last()
                    {
                        // A place for each number: what an older connection still brings harms nothing.
                        log.write_at(u64::from(*b) * 512, vec![*b; 512]).await.unwrap();
                        log.sync_data().await.unwrap();
                        if write(&s, &[*b]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        };
        server.start(serve());
        let acked = Arc::new(AtomicU64::new(0));
        let done = acked.clone();
        client.start(async move {
            for n in 1..=60u8 {
                'retry: loop {
                    let addr = resolve("server", 4222).await.unwrap()[0];
                    let Ok(Ok(s)) = env::timeout(secs(5), TcpStream::connect(addr)).await else { continue };
                    if write(&s, &[n]).await.is_ok()
                        && let Ok(Ok(v)) = env::timeout(secs(5), read(&s)).await
                        && v.contains(&n)
                    {
                        done.store(n.into(), Ordering::Relaxed);
                        break 'retry;
                    }
                    env::sleep(Duration::from_millis(100)).await;
                }
            }
        });
        let mut rng = env::rng("storm");
        while client.is_running() {
            env::sleep(Duration::from_millis(rng.between(1, 300))).await;
            match rng.below(4) {
                0 => server.kill(if rng.bool(0.5) { Death::Power } else { Death::Process }),
                1 => w.cut(&client, &server),
                2 => w.part(&client, &server),
                _ => {}
            }
            env::sleep(Duration::from_millis(rng.between(1, 2000))).await;
            w.join(&client, &server);
            if !server.is_running() {
                let before = acked.load(Ordering::Relaxed) as u8;
                server.start(serve());
                // What was acknowledged is on the disk whatever happened.
                let log = server.disk(|d| d.pristine("/data/log", 0..1 << 20)).unwrap_or_default();
                for n in 1..=before {
                    let there = log.get(usize::from(n) * 512..usize::from(n) * 512 + 512);
                    assert!(
                        there.is_some_and(|s| s.iter().all(|b| *b == n)),
                        "{n} was acknowledged and is lost"
                    );
                }
            }
        }
        acked.load(Ordering::Relaxed)
    });
    assert_eq!(acked, 60);
    trace()
}

#[test]
fn what_is_acknowledged_survives_storms() {
    let mut events = 0;
    for seed in 0..30 {
        let t = storm(config(seed));
        assert_eq!(storm(config(seed)), t, "seed {seed} does not repeat");
        events += t.events;
    }
    assert!(events > 10_000, "{events}");
    assert_ne!(
        storm(Config { seed: 1, ..Config::default() }),
        storm(Config { seed: 2, ..Config::default() })
    );
}

/// Runs one test of this binary in a process of its own.
fn child(test: &str, vars: &[(&str, &str)]) -> std::process::Output {
    let exe = std::env::current_exe().unwrap();
    let mut c = std::process::Command::new(exe);
    c.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("FULMAR_CHILD", "1");
    c.envs(vars.iter().copied()).output().unwrap()
}

#[test]
fn one_storm() {
    assert!(storm(config(7)).events > 100);
}

#[test]
fn e7_two_processes_with_one_seed_have_one_trace() {
    for seed in ["11", "12"] {
        let run = || child("one_storm", &[("FULMAR_SEED", seed), ("FULMAR_TRACE", "1")]);
        let (a, b) = (run(), run());
        assert!(a.status.success(), "{}", String::from_utf8_lossy(&a.stderr));
        let lines = |o: &std::process::Output| -> Vec<String> {
            let text = String::from_utf8_lossy(&o.stdout).into_owned();
            text.lines().filter(|l| l.starts_with("trace ")).map(str::to_owned).collect()
        };
        let (a, b) = (lines(&a), lines(&b));
        assert!(a.len() > 100, "{} lines", a.len());
        if let Some(i) = (0..a.len().max(b.len())).find(|i| a.get(*i) != b.get(*i)) {
            panic!("seed {seed}: line {i} differs:\n{:?}\n{:?}", a.get(i), b.get(i));
        }
    }
}

#[test]
#[should_panic(expected = "time limit exceeded")]
fn a_run_has_a_limit_of_virtual_time() {
    run(Config { virtual_limit: secs(5), ..config(1) }, |_| async {
        loop {
            env::sleep(secs(1)).await;
        }
    });
}

#[test]
fn a_run_has_a_limit_of_real_time() {
    if real_var("FULMAR_CHILD").is_some() {
        run(Config { wall_limit: Duration::from_millis(100), ..config(1) }, |_| async {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    let out = child("a_run_has_a_limit_of_real_time", &[]);
    assert_eq!(out.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&out.stderr).contains("of real time"));
}
