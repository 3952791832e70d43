//! The faults of the simulated disk, as data: what can go wrong, how often, when exactly, and what did.

use std::collections::BTreeMap;

/// One class of misbehaviour. New ones are added at the end, since their order feeds seeds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// At a sync a sector is left as it was, though the sync says Ok.
    LostWrite,
    /// At a sync only the first bytes of a sector arrive.
    TornWrite,
    /// At a sync a sector's bytes land on another sector, of this or another file; its own place stays as it was.
    MisdirectedWrite,
    /// A read returns another sector's bytes once.
    MisdirectedRead,
    /// A read returns what the sector held before its last sync, once.
    StaleRead,
    /// A bit at rest flips and stays so.
    BitRot,
    /// A read returns one bit flipped, once.
    TransientFlip,
    /// A sync says Ok and does nothing. A class of its own: acknowledged data may then be lost at a power failure.
    LostSync,
    /// A sync fails; each dirty sector is then either written or silently dropped from the cache.
    SyncError,
    /// A read fails.
    ReadError,
    /// A write fails after a random part of it.
    WriteError,
    /// A write or a reservation finds no space though there is some.
    NoSpace,
    /// A directory operation (open, create, rename, remove, list, directory sync) fails.
    NameError,
    /// An operation takes `slow_factor` times as long.
    Slow,
    /// A file has vanished; only placed by [`super::SimDisk::damage_file`], never drawn.
    MissingFile,
    /// A file was cut; only placed by [`super::SimDisk::damage_file`], never drawn.
    TruncatedFile,
}

impl Fault {
    /// All classes, in order.
    pub const ALL: [Fault; 16] = [
        Fault::LostWrite,
        Fault::TornWrite,
        Fault::MisdirectedWrite,
        Fault::MisdirectedRead,
        Fault::StaleRead,
        Fault::BitRot,
        Fault::TransientFlip,
        Fault::LostSync,
        Fault::SyncError,
        Fault::ReadError,
        Fault::WriteError,
        Fault::NoSpace,
        Fault::NameError,
        Fault::Slow,
        Fault::MissingFile,
        Fault::TruncatedFile,
    ];
}

/// What happens at an exact operation; see [`super::SimDisk::plan`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planned {
    /// The power fails before the operation has any effect.
    CrashBefore,
    /// The operation takes effect, then the power fails before its caller hears of it.
    CrashAfter,
    /// The fault strikes this operation, if it can strike such an operation at all.
    Fault(Fault),
}

/// How the disk behaves. The default is a well-behaved disk that still forgets, at a power failure, what was not synced.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that a crash or a fault treats as one. Power of two.
    pub sector: u64,
    /// Bytes on the disk; data and reservations count by the sector.
    pub capacity: u64,
    /// A sector that was not synced arrives whole or not at all at a power failure; otherwise it can tear.
    pub atomic_sectors: bool,
    /// Probability of each fault, per sector touched (LostWrite to TransientFlip except BitRot) or per operation (the rest).
    pub rates: BTreeMap<Fault, f64>,
    /// How many times longer an operation takes under [`Fault::Slow`].
    pub slow_factor: u64,
    /// Nanoseconds of a read or write of one sector, and of a sync.
    pub access_ns: u64,
    /// Nanoseconds of a sync.
    pub sync_ns: u64,
    /// Nanoseconds of each KiB moved.
    pub kib_ns: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sector: 512,
            capacity: 1 << 40,
            atomic_sectors: false,
            rates: BTreeMap::new(),
            slow_factor: 100,
            access_ns: 10_000,
            sync_ns: 200_000,
            kib_ns: 300,
        }
    }
}

impl Options {
    /// The same with one more fault.
    pub fn with(mut self, fault: Fault, rate: f64) -> Options {
        self.rates.insert(fault, rate);
        self
    }
}

/// One fault that struck, for the checker's report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strike {
    /// The number of the operation that it struck.
    pub op: u64,
    /// The class.
    pub fault: Fault,
    /// The file or directory.
    pub path: String,
    /// Where in the file; 0 where that means nothing.
    pub off: u64,
}

/// Why an operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// There is no such name.
    NotFound,
    /// The name is taken.
    Exists,
    /// A directory where a file is needed.
    IsDir,
    /// A file where a directory is needed.
    NotDir,
    /// The directory holds names.
    NotEmpty,
    /// The path or the range is not one.
    Invalid,
    /// The device failed.
    Io,
    /// The disk is full.
    NoSpace,
    /// The file was opened for reading only, or is not open.
    BadHandle,
    /// An earlier sync of this file failed (E-2).
    Poisoned,
    /// A read touched this offset, which nothing ever wrote.
    NeverWritten(u64),
    /// The power failed; nothing works before [`super::SimDisk::power_failure`].
    Crashed,
}
