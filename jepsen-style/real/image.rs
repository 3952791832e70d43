//! A node's disk: a folder, or an ext4 file system of its own on a loop image, which can lose power and be full.
//!
//! Losing power is `EXT4_IOC_SHUTDOWN` without flushing the log: the ioctl with which file systems are tested for what a
//! crash leaves. From that instant nothing more reaches the image, whoever asks; what was not synced (or written back by
//! the kernel by itself, as it would have been on a real machine) is gone with the page cache, and the next mount replays
//! the file system's journal as after a real loss of power. The processes are stopped before, and killed after, so that no
//! acknowledgement leaves while the disk is already gone. What is not modelled is a drive that lies about its cache or
//! tears sectors; the simulated disk does those. A copy of the live image was the other choice, and is worse: the copy is
//! not of one instant, and can show a file system that no crash can leave.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use super::Wrong;

/// A node's disk.
#[derive(Debug)]
pub struct Disk {
    /// Where the node's data lie.
    mount: PathBuf,
    /// The image behind it; none for a plain folder.
    image: Option<PathBuf>,
    mounted: bool,
}

/// The file that takes all space.
const BALLAST: &str = "ballast";

/// Runs a program that must succeed.
fn run(program: &str, args: &[&str]) -> Result<(), Wrong> {
    let out = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim()))
}

fn text(p: &Path) -> Result<&str, Wrong> {
    p.to_str().ok_or_else(|| format!("not UTF-8: {}", p.display()))
}

impl Disk {
    /// A plain folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(at: &Path) -> Result<Disk, Wrong> {
        fs::create_dir_all(at).map_err(|e| format!("{}: {e}", at.display()))?;
        Ok(Disk { mount: at.to_owned(), image: None, mounted: true })
    }

    /// A file system of `mib` MiB on an image beside the mount point.
    ///
    /// # Errors
    /// The machine does not permit it: mounting needs root.
    pub fn image(at: &Path, mib: u64) -> Result<Disk, Wrong> {
        let e = |e: std::io::Error| format!("{}: {e}", at.display());
        fs::create_dir_all(at).map_err(e)?;
        let image = at.with_extension("img");
        File::create(&image).and_then(|f| f.set_len(mib << 20)).map_err(e)?;
        run("mkfs.ext4", &["-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", text(&image)?])?;
        let mut disk = Disk { mount: at.to_owned(), image: Some(image), mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Where the node may keep its data.
    pub fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Mounts the image, which replays its journal.
    ///
    /// # Errors
    /// The mount failed.
    pub fn mount(&mut self) -> Result<(), Wrong> {
        if let Some(image) = self.image.as_ref().filter(|_| !self.mounted) {
            run("mount", &["-o", "loop,noatime", text(image)?, text(&self.mount)?])?;
        }
        self.mounted = true;
        Ok(())
    }

    /// Cuts the power: see the module's head. The processes that use it must stand still, and be killed before
    /// [`Disk::unmount`].
    ///
    /// # Errors
    /// It is a plain folder, or the ioctl failed.
    pub fn shut_down(&self) -> Result<(), Wrong> {
        if self.image.is_none() {
            return Err("a plain folder cannot lose power".into());
        }
        // _IOR('X', 125, u32) with EXT4_GOING_FLAGS_NOLOGFLUSH. Python, since an ioctl is unsafe in Rust and this code
        // is not.
        let ask = "import fcntl,os,struct,sys\nfcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587D,struct.pack('I',2))";
        run("python3", &["-c", ask, text(&self.mount)?])
    }

    /// Syncs the whole file system.
    ///
    /// # Errors
    /// It failed.
    pub fn sync(&self) -> Result<(), Wrong> {
        run("sync", &["-f", text(&self.mount)?])
    }

    /// Takes the file system away after [`Disk::shut_down`].
    ///
    /// # Errors
    /// Somebody still uses it.
    pub fn unmount(&mut self) -> Result<(), Wrong> {
        if self.image.is_some() && self.mounted {
            run("umount", &[text(&self.mount)?])?;
            self.mounted = false;
        }
        Ok(())
    }

    /// Takes all space.
    ///
    /// # Errors
    /// It is a plain folder: that would fill the machine.
    pub fn fill(&self) -> Result<(), Wrong> {
        if self.image.is_none() {
            return Err("a plain folder is not filled".into());
        }
        let path = self.mount.join(BALLAST);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| e.to_string())?;
        // In steps down to a block, so that nothing is left.
        for size in [1 << 20, 64 << 10, 4 << 10, 1 << 10] {
            let block = vec![0x42; size];
            while file.write_all(&block).and_then(|()| file.sync_data()).is_ok() {}
        }
        Ok(())
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Errors
    /// It was not filled, or there is no room afterwards.
    pub fn free(&self) -> Result<(), Wrong> {
        let path = self.mount.join(BALLAST);
        fs::remove_file(&path).map_err(|e| e.to_string())?;
        // That there is room again is shown by writing, not believed.
        let trial =
            File::create(&path).and_then(|mut f| f.write_all(&vec![1; 1 << 20]).and_then(|()| f.sync_all()));
        fs::remove_file(&path).ok();
        trial.map_err(|e| format!("no room after the ballast is gone: {e}"))
    }

    /// Deletes everything: a node with a new disk.
    ///
    /// # Errors
    /// Something could not be deleted.
    pub fn wipe(&self) -> Result<(), Wrong> {
        match fs::remove_dir_all(self.data()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.to_string()),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A mount that is left behind would hold its loop device.
        if self.unmount().is_err() {
            super::tell(&format!("jepsen: {} is still mounted", self.mount.display()));
        }
        if let Some(image) = &self.image {
            fs::remove_file(image).ok();
        }
    }
}
