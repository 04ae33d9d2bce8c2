//! The CPU bandwidth limit of this process's cgroup, version 1 or 2.
//!
//! `/proc/self/cgroup` says where in each hierarchy the process is, `/proc/self/mountinfo` where
//! those hierarchies are mounted. If a version 1 hierarchy has the `cpu` controller it is the one
//! that limits (a controller belongs to one hierarchy only); otherwise it is version 2's. Every
//! directory from the process's own up to the mount point may set a limit, and the smallest holds.
//! Directories above the mount point (outside a container) cannot be seen.
//!
//! Paths are bytes, not text: a cgroup's name need not be UTF-8.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The CPUs that the limit buys, rounded up (so at least 1), or `None` if there is no limit or it
/// cannot be found out.
pub(super) fn cpu_limit(root: &Path) -> Option<usize> {
    let membership = fs::read(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read(root.join("proc/self/mountinfo")).ok()?;
    let (version, path) = own_path(&membership)?;
    let (mount_point, below) = lines(&mounts)
        .filter_map(Mount::parse)
        .filter(|mount| mount.version == version)
        .find_map(|mount| {
            let below = path.strip_prefix(&mount.root).ok()?.to_owned();
            Some((mount.mount_point, below))
        })?;
    // Where the mounts were recorded is absolute; a test's root is put before it.
    let mount_point = root.join(mount_point.strip_prefix("/").ok()?);
    // `ancestors` of a relative path ends with the empty one: the mount point itself.
    below
        .ancestors()
        .filter_map(|level| version.limit_of(&mount_point.join(level)))
        .min()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// The limit that this very directory sets, in CPUs rounded up.
    fn limit_of(self, directory: &Path) -> Option<usize> {
        let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
        match self {
            // One number a file; a quota of -1 is none (it does not parse as unsigned).
            Self::V1 => cpus(
                read("cpu.cfs_quota_us")?.trim(),
                read("cpu.cfs_period_us")?.trim(),
            ),
            // "quota period"; a quota of "max" is none.
            Self::V2 => {
                let text = read("cpu.max")?;
                let (quota, period) = text.trim().split_once(' ')?;
                cpus(quota, period)
            }
        }
    }
}

fn cpus(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    if quota == 0 || period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period)).ok()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n')
}

/// The hierarchy that limits CPU and this process's path in it, from lines such as
/// `4:cpu,cpuacct:/docker/1a2b` (version 1) and `0::/user.slice` (version 2).
fn own_path(membership: &[u8]) -> Option<(Version, PathBuf)> {
    let mut v2 = None;
    for line in lines(membership) {
        // The path comes last and may contain colons itself.
        let mut fields = line.splitn(3, |&b| b == b':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let path = || PathBuf::from(OsStr::from_bytes(path));
        if has_cpu(controllers) {
            return Some((Version::V1, path()));
        }
        if id == b"0" && controllers.is_empty() {
            v2 = Some((Version::V2, path()));
        }
    }
    v2
}

/// Whether a comma-separated list has exactly `cpu` in it (`cpuset` and `cpuacct` are others).
fn has_cpu(list: &[u8]) -> bool {
    list.split(|&b| b == b',').any(|item| item == b"cpu")
}

/// A mounted cgroup hierarchy that can limit CPU.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// The directory of the hierarchy that is visible at the mount point.
    root: PathBuf,
    mount_point: PathBuf,
}

impl Mount {
    /// Reads a line of mountinfo (proc_pid_mountinfo(5)):
    /// `id parent major:minor root mount-point options tag... - type source super-options`,
    /// with any number of tags, and is `None` for all other file systems.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&b| b == b' ');
        let root = fields.nth(3)?;
        let mount_point = fields.next()?;
        let mut after_tags = fields.skip_while(|field| field != b"-").skip(1);
        let version = match after_tags.next()? {
            b"cgroup2" => Version::V2,
            b"cgroup" if has_cpu(after_tags.nth(1)?) => Version::V1,
            _ => return None,
        };
        Some(Self {
            version,
            root: unescape(root),
            mount_point: unescape(mount_point),
        })
    }
}

/// Undoes the kernel's octal escapes (`\040` for a space). A backslash that does not start one
/// stands for itself.
fn unescape(field: &[u8]) -> PathBuf {
    let octal = |digits: &[u8]| {
        let value = |&d: &u8| (b'0'..=b'7').contains(&d).then(|| u32::from(d - b'0'));
        let [a, b, c] = digits else { return None };
        u8::try_from(value(a)? * 64 + value(b)? * 8 + value(c)?).ok()
    };
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'\\')
            .then(|| tail.get(..3).and_then(octal))
            .flatten();
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// A directory tree that looks like a `/` with cgroups.
#[cfg(all(test, not(loom)))]
pub(super) mod fake {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    pub(in crate::os::cpu) struct FakeRoot(PathBuf);

    impl FakeRoot {
        pub(in crate::os::cpu) fn empty() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "gort-cgroup-{}-{}",
                std::process::id(),
                // Relaxed: only its own value matters.
                NEXT.fetch_add(1, Ordering::Relaxed)
            );
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// Version 2 mounted whole, the process at `own`, and `cpu.max` in the given directories.
        pub(in crate::os::cpu) fn v2(own: &str, limits: &[(&str, &str)]) -> Self {
            let root = Self::empty();
            root.file("proc/self/cgroup", &format!("0::{own}\n"));
            root.file(
                "proc/self/mountinfo",
                "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                 41 31 0:38 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n",
            );
            for (directory, limit) in limits {
                root.file(&format!("sys/fs/cgroup/{directory}/cpu.max"), limit);
            }
            root
        }

        pub(in crate::os::cpu) fn file(&self, path: &str, content: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        pub(in crate::os::cpu) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for FakeRoot {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::fake::FakeRoot;
    use super::*;

    #[test]
    fn v2_rounds_up() {
        for (text, expected) in [
            ("max 100000\n", None),
            ("200000 100000\n", Some(2)),
            ("200001 100000\n", Some(3)),
            ("50000 100000\n", Some(1)),
            ("1000 1000000\n", Some(1)),
        ] {
            let root = FakeRoot::v2("/", &[("", text)]);
            assert_eq!(cpu_limit(root.path()), expected, "{text:?}");
        }
    }

    #[test]
    fn v2_takes_the_smallest_on_the_way_up() {
        let own = "/kubepods/pod1/box";
        let root = FakeRoot::v2(
            own,
            &[
                ("kubepods", "300000 100000"),
                ("kubepods/pod1", "max 100000"),
                ("kubepods/pod1/box", "800000 100000"),
                ("kubepods/pod2", "100000 100000"),
            ],
        );
        assert_eq!(cpu_limit(root.path()), Some(3));
        let unlimited = FakeRoot::v2(own, &[("kubepods/pod1/box", "max 100000")]);
        assert_eq!(cpu_limit(unlimited.path()), None);
    }

    #[test]
    fn nonsense_sets_no_limit() {
        for text in [
            "",
            "max",
            "100000",
            "1 0",
            "0 1",
            "-1 100000",
            "a b",
            "1 2 3",
        ] {
            let root = FakeRoot::v2("/", &[("", text)]);
            assert_eq!(cpu_limit(root.path()), None, "{text:?}");
        }
        let root = FakeRoot::v2("/", &[("", "200000 100000")]);
        root.file("proc/self/mountinfo", "garbage\n\n1 2 3\n");
        assert_eq!(cpu_limit(root.path()), None);
        root.file("proc/self/cgroup", "garbage\n\n::\n");
        assert_eq!(cpu_limit(root.path()), None);
    }

    const V1_MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        32 31 0:29 /docker/1a2b /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn v1_wins_where_it_has_the_cpu_controller() {
        let root = FakeRoot::empty();
        root.file(
            "proc/self/cgroup",
            "5:cpuset:/docker/1a2b\n4:cpu,cpuacct:/docker/1a2b/job:7\n0::/docker/1a2b\n",
        );
        root.file("proc/self/mountinfo", V1_MOUNTS);
        root.file("sys/fs/cgroup/unified/docker/1a2b/cpu.max", "100000 100000");
        assert_eq!(cpu_limit(root.path()), None);
        let cpu = "sys/fs/cgroup/cpu,cpuacct";
        root.file(&format!("{cpu}/job:7/cpu.cfs_quota_us"), "-1\n");
        root.file(&format!("{cpu}/job:7/cpu.cfs_period_us"), "100000\n");
        assert_eq!(cpu_limit(root.path()), None);
        root.file(&format!("{cpu}/cpu.cfs_quota_us"), "350000\n");
        root.file(&format!("{cpu}/cpu.cfs_period_us"), "100000\n");
        assert_eq!(cpu_limit(root.path()), Some(4));
    }

    #[test]
    fn a_process_outside_the_mounted_part_has_no_known_limit() {
        let root = FakeRoot::empty();
        root.file("proc/self/cgroup", "4:cpu,cpuacct:/docker/other\n");
        root.file("proc/self/mountinfo", V1_MOUNTS);
        let cpu = "sys/fs/cgroup/cpu,cpuacct";
        root.file(&format!("{cpu}/cpu.cfs_quota_us"), "100000\n");
        root.file(&format!("{cpu}/cpu.cfs_period_us"), "100000\n");
        assert_eq!(cpu_limit(root.path()), None);
    }

    #[test]
    fn escaped_mount_points() {
        assert_eq!(unescape(br"/a\040b\134c\011"), Path::new("/a b\\c\t"));
        assert_eq!(unescape(br"/a\9\04"), Path::new(r"/a\9\04"));
        let root = FakeRoot::empty();
        root.file("proc/self/cgroup", "0::/x\n");
        root.file(
            "proc/self/mountinfo",
            "41 31 0:38 / /mnt/my\\040groups rw - cgroup2 none rw\n",
        );
        root.file("mnt/my groups/x/cpu.max", "600000 100000\n");
        assert_eq!(cpu_limit(root.path()), Some(6));
    }
}
