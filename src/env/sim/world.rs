//! The world: its machines, their life and death, and the entry point of a run.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Condvar, Mutex as StdMutex},
    time::Duration,
};

use madsim::{
    plugin::Simulator,
    rand::GlobalRng,
    runtime::{Handle, Runtime},
    task::{JoinHandle, NodeId},
    time::TimeHandle,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{
    clock::ClockState,
    net::{Net, NetOptions},
    recorder,
};
use crate::{Rng, signal::Signal, simdisk, simdisk::SimDisk, trace};

/// What a run begins with.
#[derive(Clone, Debug)]
pub struct Config {
    /// All randomness follows from it.
    pub seed: u64,
    /// The run fails when this much virtual time has passed.
    pub virtual_limit: Duration,
    /// The process is ended when the run takes this long on a real clock.
    pub wall_limit: Duration,
    /// How links and sockets behave; can be changed later.
    pub net: NetOptions,
    /// How disks behave; can be changed later.
    pub disk: simdisk::Options,
    /// Print each event of the trace.
    pub print_trace: bool,
    /// Print the log lines of the machines.
    pub print_logs: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            seed: 0,
            virtual_limit: Duration::from_secs(3600),
            wall_limit: Duration::from_secs(120),
            net: NetOptions::default(),
            disk: simdisk::Options::default(),
            print_trace: false,
            print_logs: false,
        }
    }
}

/// How a process ends against its will.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The process is killed; the page cache stays, the kernel closes or resets its connections.
    Process,
    /// The machine loses power: what was not synced may be lost, and peers hear nothing.
    Power,
}

/// A handle to the world of the run on this thread.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    seed: u64,
    config: Config,
    machines: Mutex<BTreeMap<NodeId, State>>,
    pub(super) net: Mutex<Net>,
}

/// A machine as the backend sees it.
pub struct State {
    pub name: String,
    pub ip: IpAddr,
    pub clock: ClockState,
    pub cores: usize,
    /// How often a process was started here.
    pub boots: u64,
    /// The machine has power.
    pub up: bool,
    /// A process runs.
    pub running: bool,
    pub args: Vec<String>,
    pub vars: BTreeMap<String, String>,
    pub signals: Vec<mpsc::Sender<Signal>>,
    pub disk: Arc<Mutex<SimDisk>>,
    pub locks: BTreeSet<String>,
    salts: BTreeMap<String, u64>,
    number: u32,
    dying: Death,
    down: Arc<Notify>,
    print_logs: bool,
}

impl State {
    pub fn pid(&self) -> u32 {
        1000 + 100 * self.number + self.boots as u32
    }
    pub fn log_line(&self, line: &[u8]) {
        if self.print_logs {
            let mut out = std::io::stdout().lock();
            // A harness without a standard output has nobody to tell.
            out.write_all(self.name.as_bytes())
                .and_then(|()| out.write_all(b": "))
                .and_then(|()| out.write_all(line))
                .ok();
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<World>> = const { RefCell::new(None) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Virtual nanoseconds since the run began; `None` outside a run.
pub fn elapsed() -> Option<u64> {
    TimeHandle::try_current().map(|t| t.elapsed().as_nanos() as u64)
}

/// The bridge to madsim: it tells which nodes come and go.
struct Plug(World);

impl Simulator for Plug {
    fn new(_: &GlobalRng, _: &TimeHandle, _: &madsim::Config) -> Plug {
        Plug(CURRENT.with_borrow(|w| w.clone()).expect("run sets the world before it makes the runtime"))
    }
    fn create_node(&self, id: NodeId) {
        self.0.add(id);
    }
    fn reset_node(&self, id: NodeId) {
        self.0.died(id);
    }
}

/// Runs a harness to its end, as a task on a machine of its own named `harness`. Panics of any task and both limits end the
/// run as a panic; the wall-clock limit ends the process with code 3, since a busy loop cannot be interrupted.
pub fn run<F: Future>(config: Config, harness: impl FnOnce(World) -> F) -> F::Output {
    assert!(!RUNNING.replace(true), "one simulated run a thread at a time");
    let seed = config.seed;
    recorder::begin(config.print_trace);
    let world = World(Arc::new(Shared {
        seed,
        machines: Mutex::new(BTreeMap::new()),
        net: Mutex::new(Net::new(config.net.clone(), Rng::derived(seed, "net"))),
        config: config.clone(),
    }));
    CURRENT.set(Some(world.clone()));
    // The dog must be a real thread, and those can only be started outside the runtime.
    let done = Arc::new((StdMutex::new(false), Condvar::new()));
    let dog = std::thread::spawn({
        let (done, limit) = (done.clone(), config.wall_limit);
        move || {
            let (lock, wake) = &*done;
            let guard = lock.lock().expect("nobody panics with this lock");
            let (guard, _) =
                wake.wait_timeout_while(guard, limit, |d| !*d).expect("nobody panics with this lock");
            if !*guard {
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("seed {seed}: the run took longer than {limit:?} of real time");
                }
                std::process::exit(3);
            }
        }
    });
    struct Finish(Arc<(StdMutex<bool>, Condvar)>, Option<std::thread::JoinHandle<()>>);
    impl Drop for Finish {
        fn drop(&mut self) {
            if let Ok(mut d) = self.0.0.lock() {
                *d = true;
            }
            self.0.1.notify_all();
            if let Some(t) = self.1.take() {
                t.join().ok();
            }
            CURRENT.set(None);
            RUNNING.set(false);
        }
    }
    let _finish = Finish(done, Some(dog));
    let mut rt = Runtime::with_seed_and_config(seed, madsim::Config::default());
    rt.add_simulator::<Plug>();
    rt.set_time_limit(config.virtual_limit);
    rt.block_on(harness(world))
}

impl World {
    /// The world and the machine that this code runs on; no machine outside tasks.
    pub(crate) fn here() -> Option<(World, Option<NodeId>)> {
        let world = CURRENT.try_with(|w| w.try_borrow().ok().and_then(|w| w.clone())).ok().flatten()?;
        let node = Handle::try_current().is_ok().then(madsim::plugin::node);
        Some((world, node))
    }
    /// The state of this code's machine, and the virtual time.
    pub(crate) fn with_here<T>(f: impl FnOnce(&mut State, u64) -> T) -> Option<T> {
        let (world, node) = World::here()?;
        Some(world.with(node?, f))
    }
    pub(crate) fn with<T>(&self, node: NodeId, f: impl FnOnce(&mut State, u64) -> T) -> T {
        let t = elapsed().unwrap_or(0);
        f(self.0.machines.lock().get_mut(&node).expect("every node has a machine"), t)
    }
    pub(crate) fn net<T>(&self, f: impl FnOnce(&mut Net) -> T) -> T {
        f(&mut self.0.net.lock())
    }
    pub(crate) fn salt(salt: &str) -> Option<(u64, String)> {
        let (world, node) = World::here()?;
        Some(world.with(node?, |m, _| {
            let n = m.salts.entry(salt.to_owned()).or_default();
            *n += 1;
            (world.0.seed, format!("{}/{}/{salt}/{n}", m.number, m.boots))
        }))
    }

    fn add(&self, id: NodeId) {
        let mut all = self.0.machines.lock();
        let number = all.len() as u32;
        let rng = Rng::derived(self.0.seed, &format!("disk/{number}"));
        let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + number));
        all.insert(
            id,
            State {
                name: if number == 0 { "harness".into() } else { format!("n{number}") },
                ip,
                clock: ClockState::new(),
                cores: 2,
                boots: 0,
                up: true,
                running: number == 0,
                args: Vec::new(),
                vars: BTreeMap::new(),
                signals: Vec::new(),
                disk: Arc::new(Mutex::new(SimDisk::new(self.0.config.disk.clone(), rng))),
                locks: BTreeSet::new(),
                salts: BTreeMap::new(),
                number,
                dying: Death::Process,
                down: Arc::new(Notify::new()),
                print_logs: self.0.config.print_logs,
            },
        );
        drop(all);
        self.net(|n| n.add_machine(id, ip));
    }

    /// Cleans up after a process, as the kernel or the lost power would. Called by madsim from `kill`.
    fn died(&self, id: NodeId) {
        let (how, down, number) = self.with(id, |m, t| {
            let how = std::mem::replace(&mut m.dying, Death::Process);
            m.running = false;
            m.signals.clear();
            m.locks.clear();
            m.salts.clear();
            m.clock.restart(t);
            let mut disk = m.disk.lock();
            match how {
                Death::Process if !disk.crashed() => disk.process_death(),
                _ => {
                    disk.power_failure();
                    m.up = false;
                }
            }
            (if m.up { Death::Process } else { Death::Power }, m.down.clone(), m.number)
        });
        trace::event("died", &[u64::from(number), u64::from(how == Death::Power)]);
        let t = elapsed().unwrap_or(0);
        self.net(|n| n.died(id, how, t));
        down.notify_waiters();
    }

    pub(crate) fn kill(&self, id: NodeId, how: Death) {
        self.with(id, |m, _| m.dying = how);
        Handle::current().kill(id);
    }

    /// The run's seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }
    /// Virtual time since the run began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(elapsed().unwrap_or(0))
    }
    /// A new machine with power, an address, a disk and a name that resolves, but without a process.
    pub fn machine(&self, name: &str) -> Machine {
        let id = Handle::current().create_node().name(name).build().id();
        let ip = self.with(id, |m, _| {
            m.name = name.to_owned();
            m.ip
        });
        self.net(|n| n.name(name, ip));
        Machine { world: self.clone(), id }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World(seed {})", self.0.seed)
    }
}

/// The harness's handle to one machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) world: World,
    pub(super) id: NodeId,
}

impl Machine {
    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.world.with(self.id, |m, _| m.ip)
    }
    /// Its name.
    pub fn name(&self) -> String {
        self.world.with(self.id, |m, _| m.name.clone())
    }
    /// Gives the machine power if it has none, and starts a process with this main task. When that ends, so does the
    /// process with all its tasks. A process that still runs is killed first.
    pub fn start<F>(&self, main: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.is_running() {
            self.kill(Death::Process);
        }
        let (boots, number) = self.world.with(self.id, |m, _| {
            m.boots += 1;
            m.up = true;
            m.running = true;
            (m.boots, m.number)
        });
        trace::event("start", &[u64::from(number), boots]);
        let t = elapsed().unwrap_or(0);
        self.world.net(|n| n.powered(self.id, t));
        // A killed node takes tasks again only after this.
        Handle::current().restart(self.id);
        let (world, id) = (self.world.clone(), self.id);
        let node = Handle::current().get_node(self.id).expect("the node was made with its machine");
        node.spawn(async move {
            main.await;
            world.kill(id, Death::Process);
        })
    }
    /// Ends the process, or takes the machine's power.
    pub fn kill(&self, how: Death) {
        self.world.kill(self.id, how)
    }
    /// Stops the process where it is, as SIGSTOP does; its clocks go on.
    pub fn pause(&self) {
        trace::event("pause", &[self.number()]);
        Handle::current().pause(self.id)
    }
    /// Lets a paused process go on.
    pub fn resume(&self) {
        trace::event("resume", &[self.number()]);
        Handle::current().resume(self.id)
    }
    /// Whether a process runs (or is paused).
    pub fn is_running(&self) -> bool {
        self.world.with(self.id, |m, _| m.running)
    }
    /// Waits until no process runs.
    pub async fn down(&self) {
        loop {
            let notify = self.world.with(self.id, |m, _| m.down.clone());
            if !self.is_running() {
                return;
            }
            notify.notified().await;
        }
    }
    /// Sends a signal to the process.
    pub fn signal(&self, what: Signal) {
        trace::event("signal", &[self.number(), what as u64]);
        super::signal::deliver(&self.world, self.id, what)
    }
    /// Makes both clocks run this many parts per million fast.
    pub fn set_drift(&self, ppm: i64) {
        self.world.with(self.id, |m, t| m.clock.set_ppm(t, ppm.clamp(-900_000, 900_000)))
    }
    /// Lets the wall clock jump by this many nanoseconds.
    pub fn jump_wall(&self, ns: i64) {
        self.world.with(self.id, |m, t| m.clock.jump(t, ns))
    }
    /// What the process sees as its command line, from the next look on.
    pub fn set_args(&self, args: Vec<String>) {
        self.world.with(self.id, |m, _| m.args = args)
    }
    /// Sets a variable of the process's environment.
    pub fn set_var(&self, name: &str, value: &str) {
        self.world.with(self.id, |m, _| m.vars.insert(name.into(), value.into()));
    }
    /// How many cores the process sees.
    pub fn set_cores(&self, n: usize) {
        self.world.with(self.id, |m, _| m.cores = n.max(1))
    }
    /// Looks at the machine's disk, or breaks it.
    pub fn disk<T>(&self, f: impl FnOnce(&mut SimDisk) -> T) -> T {
        let disk = self.world.with(self.id, |m, _| m.disk.clone());
        let mut disk = disk.lock();
        f(&mut disk)
    }
    pub(super) fn number(&self) -> u64 {
        self.world.with(self.id, |m, _| u64::from(m.number))
    }
}
