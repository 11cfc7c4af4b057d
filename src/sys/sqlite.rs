//! What SQLite opens: a file that is open already, or one by its name, but then without waiting.
//!
//! SQLite opens files by path. Between a look at a path and that moment another file, or a FIFO, may
//! be put there, and be gone again when somebody looks the next time. A database that was verified
//! is therefore read through the descriptor through which it was digested, whatever its name leads
//! to by now; and a FIFO in place of one that may change is opened without waiting for a writer.

#![allow(unsafe_code, reason = "SQLite asks for its files through function pointers of C")]

use rusqlite::ffi;
use rusqlite::{Connection, OpenFlags};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;
use std::ptr;
use std::sync::Once;

/// Under which name SQLite knows the files that are open already.
const HELD: &CStr = c"fim-held";

/// Opens the database in an open file, to be read; nothing is looked for beside it. It must not be
/// written while the connection lives.
///
/// # Errors
/// Those of SQLite.
pub fn open_held(file: &File) -> rusqlite::Result<Connection> {
    // The registration is SQLite's own, and for the whole process.
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let vfs = Box::leak(Box::new(held_files()));
        // SAFETY: the structure is never freed, and its functions are those below.
        unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    });
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // SQLite opens the file before the call returns: `file` is open all that time.
    Connection::open_with_flags_and_vfs(file.as_raw_fd().to_string(), flags, HELD)
}

/// Makes SQLite open whatever it opens by name from now on without waiting for anybody.
pub fn never_wait() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        type Plain = unsafe extern "C" fn();
        type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
        let open: Open = open_without_waiting;
        // SAFETY: SQLite calls what is set for "open" with these three arguments (os_unix.c,
        // `aSyscall`); the cast only hides them, as `sqlite3_syscall_ptr` asks. The default VFS is
        // never freed.
        unsafe {
            let open = std::mem::transmute::<Open, Plain>(open);
            let vfs = ffi::sqlite3_vfs_find(ptr::null());
            if let Some(set) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) {
                set(vfs, c"open".as_ptr(), Some(open));
            }
        }
    });
}

unsafe extern "C" fn open_without_waiting(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: the caller's path ends with a NUL: it is that of open(2).
    unsafe { libc::open(path, flags | libc::O_NONBLOCK | libc::O_NOCTTY, mode) }
}

/// What SQLite keeps for an open file; it begins with what SQLite knows of it.
#[repr(C)]
struct Held {
    base: ffi::sqlite3_file,
    fd: RawFd,
}

/// How a held file is used.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(number),
    xFileSize: Some(file_size),
    xLock: Some(number),
    xUnlock: Some(number),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

fn held_files() -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 1,
        szOsFile: c_int::try_from(size_of::<Held>()).unwrap_or(c_int::MAX),
        mxPathname: 32,
        pNext: ptr::null_mut(),
        zName: HELD.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: None,
        xCurrentTimeInt64: None,
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// The file that SQLite hands back; it stays open.
///
/// # Safety
/// `file` is one that [`open`] made.
unsafe fn held(file: *mut ffi::sqlite3_file) -> ManuallyDrop<File> {
    // SAFETY: the caller's; `Held` begins with what the pointer says.
    let fd = unsafe { (*file.cast::<Held>()).fd };
    // SAFETY: the descriptor was opened by `open` and is closed by `close` only.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    _: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands over `szOsFile` bytes; without methods it does not call `close`.
    unsafe { (*file).pMethods = ptr::null() };
    if name.is_null() {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: a name that is not null ends with a NUL.
    let name = unsafe { CStr::from_ptr(name) };
    let number = name.to_str().ok().and_then(|name| name.parse::<RawFd>().ok());
    let Some(number) = number else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: `open_held` borrows the file whose number this is until SQLite has opened it.
    let given = ManuallyDrop::new(unsafe { File::from_raw_fd(number) });
    let Ok(own) = given.try_clone() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: as above; `flags_out` may be null.
    unsafe {
        let held = file.cast::<Held>();
        (*held).fd = own.into_raw_fd();
        (*held).base.pMethods = &raw const METHODS;
        if !flags_out.is_null() {
            *flags_out = ffi::SQLITE_OPEN_READONLY;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes what `open` made, once.
    drop(ManuallyDrop::into_inner(unsafe { held(file) }));
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite hands over `amount` bytes, and a file that `open` made.
    let (space, file) = unsafe {
        ptr::write_bytes(into.cast::<u8>(), 0, amount);
        (std::slice::from_raw_parts_mut(into.cast::<u8>(), amount), held(file))
    };
    let mut done = 0;
    while done < amount {
        match file.read_at(&mut space[done..], offset + done as u64) {
            // What is missing has to be zero.
            Ok(0) => return ffi::SQLITE_IOERR_SHORT_READ,
            Ok(got) => done += got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return ffi::SQLITE_IOERR_READ,
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    size: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite hands over a file that `open` made.
    let length = unsafe { held(file) }.metadata().map(|metadata| metadata.len());
    let Some(length) = length.ok().and_then(|length| i64::try_from(length).ok()) else {
        return ffi::SQLITE_IOERR_FSTAT;
    };
    // SAFETY: SQLite hands over a place for it.
    unsafe { *size = length };
    ffi::SQLITE_OK
}

unsafe extern "C" fn write(
    _: *mut ffi::sqlite3_file,
    _: *const c_void,
    _: c_int,
    _: ffi::sqlite3_int64,
) -> c_int {
    ffi::SQLITE_READONLY
}

unsafe extern "C" fn truncate(_: *mut ffi::sqlite3_file, _: ffi::sqlite3_int64) -> c_int {
    ffi::SQLITE_READONLY
}

/// Nobody writes: there is nothing to lock and nothing to bring to disk.
unsafe extern "C" fn number(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn is_reserved(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite hands over a place for it.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_IMMUTABLE
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    ffi::SQLITE_READONLY
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    _: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands over a place for it. There is nothing beside the file.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite hands over a name that ends with a NUL, and so much room.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if usize::try_from(room).is_ok_and(|room| name.len() > room) {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite hands over so much room. What only reads names no file by chance.
    unsafe { ptr::write_bytes(out, 0, usize::try_from(room).unwrap_or(0)) };
    room
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, _: c_int) -> c_int {
    0
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite hands over a place for it. No statement asks for the time.
    unsafe { *out = 0.0 };
    ffi::SQLITE_OK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_read_through_its_descriptor_whatever_its_name_leads_to() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("db");
        let make = |value: &str| {
            // What is there belongs to another.
            let _ = std::fs::remove_file(&path);
            let connection = Connection::open(&path).unwrap();
            connection.execute_batch("CREATE TABLE t (v TEXT)").unwrap();
            connection.execute("INSERT INTO t VALUES (?1)", [value]).unwrap();
        };
        make("verified");
        let file = File::open(&path).unwrap();
        make("another");
        let held = open_held(&file).unwrap();
        drop(file);
        let value = |connection: &Connection| {
            connection.query_row("SELECT v FROM t", [], |row| row.get::<_, String>(0)).unwrap()
        };
        assert_eq!(value(&held), "verified");
        assert_eq!(value(&Connection::open(&path).unwrap()), "another");
        assert!(held.execute("INSERT INTO t VALUES ('x')", []).is_err());
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("db");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        never_wait();
        let opened = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let read = opened.and_then(|connection| connection.execute_batch("SELECT * FROM t"));
        assert!(read.is_err());
    }
}
