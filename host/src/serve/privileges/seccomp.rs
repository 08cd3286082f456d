//! Which system calls threads may make (seccomp(2), filters). What is denied fails with EPERM, and with it
//! the call of the driver that asked for it.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// What the threads that do not mount may call: files and directories, memory, threads, time, unix sockets.
/// The kernel keeps a list of the numbers that are always allowed, so these cost no run of the filter (Linux
/// 5.11).
#[rustfmt::skip]
const WORKING: &[libc::c_long] = &[
    // Files by descriptor.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev,
    libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_lseek, libc::SYS_close, libc::SYS_close_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_fcntl,
    libc::SYS_flock, libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs, libc::SYS_sync_file_range,
    libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fadvise64, libc::SYS_readahead, libc::SYS_copy_file_range, libc::SYS_sendfile,
    libc::SYS_splice, libc::SYS_tee, libc::SYS_pipe2, libc::SYS_getdents64, libc::SYS_fchmod, libc::SYS_fchown, libc::SYS_fgetxattr,
    libc::SYS_fsetxattr, libc::SYS_flistxattr, libc::SYS_fremovexattr, libc::SYS_memfd_create,
    // Files by name.
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_statfs, libc::SYS_faccessat, libc::SYS_faccessat2,
    libc::SYS_readlinkat, libc::SYS_getcwd, libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_unlinkat,
    libc::SYS_renameat2, libc::SYS_fchmodat, libc::SYS_fchmodat2, libc::SYS_fchownat, libc::SYS_utimensat, libc::SYS_truncate,
    libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_listxattr, libc::SYS_llistxattr,
    libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_umask,
    // Memory; the code of a component is made executable after it was compiled.
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect, libc::SYS_madvise, libc::SYS_mincore, libc::SYS_membarrier,
    // Threads, signals, and what tells about oneself.
    libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_set_tid_address, libc::SYS_exit,
    libc::SYS_exit_group, libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_getcpu, libc::SYS_gettid, libc::SYS_getpid,
    libc::SYS_getppid, libc::SYS_tgkill, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack,
    libc::SYS_restart_syscall, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getrusage,
    libc::SYS_prlimit64, libc::SYS_getpriority, libc::SYS_setpriority, libc::SYS_sysinfo, libc::SYS_uname, libc::SYS_capget, libc::SYS_getrandom,
    // Time and waiting.
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday, libc::SYS_ppoll,
    libc::SYS_pselect6, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime,
    // Unix sockets: which kind is looked at where one is made.
    libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect, libc::SYS_getsockname, libc::SYS_getpeername,
    libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_shutdown, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg,
];

/// The older forms of some of these, that C libraries still call where there are any.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER: &[libc::c_long] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink,
    libc::SYS_rename, libc::SYS_renameat, libc::SYS_link, libc::SYS_symlink, libc::SYS_mknod, libc::SYS_chmod, libc::SYS_chown,
    libc::SYS_lchown, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_wait, libc::SYS_eventfd,
    libc::SYS_time, libc::SYS_getrlimit, libc::SYS_arch_prctl,
];
#[cfg(target_arch = "aarch64")]
const OLDER: &[libc::c_long] = &[libc::SYS_renameat, libc::SYS_getrlimit];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OLDER: &[libc::c_long] = &[];

/// What the thread that mounts may not call either. What else a mount calls is its to know.
#[rustfmt::skip]
const NEVER: &[libc::c_long] = &[
    libc::SYS_kexec_load, libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_bpf, libc::SYS_perf_event_open,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise, libc::SYS_pidfd_getfd,
    libc::SYS_userfaultfd, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_add_key,
    libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl,
    libc::SYS_quotactl_fd, libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_syslog, libc::SYS_vhangup, libc::SYS_personality, libc::SYS_setns,
    libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_by_handle_at, libc::SYS_fanotify_init, libc::SYS_mount_setattr,
    libc::SYS_seccomp, libc::SYS_socket, libc::SYS_socketpair, libc::SYS_execve, libc::SYS_execveat,
];

/// All that clone(2) can make a namespace of.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// The ioctls of the standard library, tokio and the log, and the one that shares the blocks of a file.
const IOCTLS: [libc::c_ulong; 6] =
    [libc::FIOCLEX, libc::FIONBIO, libc::FIONREAD, libc::TCGETS, libc::TIOCGWINSZ, libc::FICLONE];

/// Naming threads, and (glibc) naming their memory.
const PRCTLS: [i32; 3] = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allows the calling thread, and those that it starts, what a thread needs that does not mount.
///
/// # Errors
///
/// The kernel has no filters, or refuses this one.
pub(super) fn working() -> io::Result<()> {
    let mut rules: Rules = WORKING.iter().chain(OLDER).map(|&call| (number(call), Vec::new())).collect();
    let mut only = |call, argument, values: &[u64]| -> io::Result<()> {
        let rule = |&value: &u64| equal(argument, value);
        rules.insert(number(call), values.iter().map(rule).collect::<io::Result<_>>()?);
        Ok(())
    };
    only(libc::SYS_socket, 0, &[value(libc::AF_UNIX)])?;
    only(libc::SYS_socketpair, 0, &[value(libc::AF_UNIX)])?;
    only(libc::SYS_ioctl, 1, &IOCTLS)?;
    only(libc::SYS_prctl, 0, &PRCTLS.map(value))?;
    rules.insert(number(libc::SYS_clone), vec![no_namespace()?]);
    // Its flags lie in memory, where a filter does not look; a kernel that does not have it is asked for the
    // older call instead.
    let older: Rules = [(number(libc::SYS_clone3), Vec::new())].into();
    rules.extend(older.clone());
    install(older, SeccompAction::Allow, SeccompAction::Errno(value(libc::ENOSYS) as u32))?;
    install(rules, SeccompAction::Errno(value(libc::EPERM) as u32), SeccompAction::Allow)
}

/// Denies the calling thread, and those that it starts, what no mount needs.
///
/// # Errors
///
/// As [`working`].
pub(super) fn mounting() -> io::Result<()> {
    let rules = NEVER.iter().map(|&call| (number(call), Vec::new())).collect();
    install(rules, SeccompAction::Allow, SeccompAction::Errno(value(libc::EPERM) as u32))
}

fn install(rules: Rules, otherwise: SeccompAction, on_match: SeccompAction) -> io::Result<()> {
    let architecture = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, on_match, architecture).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    apply_filter(&program).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        other => io::Error::other(other),
    })
}

/// A condition on the lower half of an argument: that is what the kernel looks at in all of these.
fn equal(argument: u8, value: u64) -> io::Result<SeccompRule> {
    rule(argument, SeccompCmpOp::Eq, value)
}

fn no_namespace() -> io::Result<SeccompRule> {
    rule(0, SeccompCmpOp::MaskedEq(value(NAMESPACES)), 0)
}

fn rule(argument: u8, operation: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(io::Error::other)
}

/// The number of a call, as the filters have it on every architecture.
#[allow(clippy::useless_conversion)]
fn number(call: libc::c_long) -> i64 {
    i64::from(call)
}

/// A constant of the C headers, all of which fit in 32 bits; the sign is that of a bit.
fn value(constant: i32) -> u64 {
    u64::from(constant.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use nix::errno::Errno;
    use nix::mount::{MsFlags, mount, umount};
    use nix::sched::{CloneFlags, unshare};
    use rustix::mount::{FsOpenFlags, fsopen};

    use super::*;

    const NOWHERE: &str = "/nonexistent/layerbox";

    /// Does something in a thread with a filter, which ends with the thread.
    fn filtered<T: Send + 'static>(
        filter: fn() -> io::Result<()>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let thread = thread::spawn(move || {
            filter().expect("a filter");
            work()
        });
        thread.join().expect("no panic")
    }

    /// The error that a call ends with. Without the filter it would be another: there is no such path, or it
    /// would work.
    #[test]
    fn threads_that_work_cannot_mount_nor_run_nor_speak_to_the_net() {
        type Attempt = fn() -> Option<i32>;
        fn code<T>(result: io::Result<T>) -> Option<i32> {
            result.err().and_then(|error| error.raw_os_error())
        }
        let attempts: [(&str, Attempt); 9] = [
            ("mount", || {
                let mounted = mount(None::<&str>, NOWHERE, Some("tmpfs"), MsFlags::empty(), None::<&str>);
                code(mounted.map_err(io::Error::from))
            }),
            ("umount2", || code(umount(NOWHERE).map_err(io::Error::from))),
            ("fsopen", || code(fsopen("no-such", FsOpenFlags::empty()).map_err(io::Error::from))),
            ("chroot", || code(nix::unistd::chroot(Path::new("/nonexistent")).map_err(io::Error::from))),
            ("unshare", || code(unshare(CloneFlags::CLONE_FS).map_err(io::Error::from))),
            ("execve", || code(Command::new("/bin/true").status())),
            ("socket", || code(std::net::TcpStream::connect("127.0.0.1:9"))),
            ("chdir", || code(std::env::set_current_dir("/"))),
            ("kill", || code(nix::sys::signal::kill(nix::unistd::getpid(), None).map_err(io::Error::from))),
        ];
        for (name, attempt) in attempts {
            assert_eq!(filtered(working, attempt), Some(Errno::EPERM as i32), "{name}");
        }
    }

    #[test]
    fn threads_that_work_can_do_their_work() {
        filtered(working, || {
            let directory = std::env::temp_dir().join(format!("layerbox-filter.{}", std::process::id()));
            std::fs::create_dir_all(directory.join("a")).expect("mkdir");
            std::fs::write(directory.join("a/f"), "text").expect("write");
            std::fs::rename(directory.join("a/f"), directory.join("g")).expect("rename");
            assert_eq!(thread::spawn(|| 7).join().expect("a thread"), 7);
            drop(UnixStream::pair().expect("a socket"));
            std::fs::remove_dir_all(directory).expect("unlink");
        });
    }

    #[test]
    fn the_thread_that_mounts_can_mount_and_run_nothing_and_open_no_way_to_the_net() {
        filtered(mounting, || {
            let ran = Command::new("/bin/true").status().err();
            assert_eq!(ran.and_then(|error| error.raw_os_error()), Some(Errno::EPERM as i32));
            let opened = fsopen("no-such", FsOpenFlags::empty()).err();
            assert!(
                opened.is_some_and(
                    |errno| errno != rustix::io::Errno::PERM || !nix::unistd::geteuid().is_root()
                )
            );
            let connected = std::net::TcpStream::connect("127.0.0.1:9").err();
            assert_eq!(connected.and_then(|error| error.raw_os_error()), Some(Errno::EPERM as i32));
        });
    }
}
