//! [`replace_file`]: a file is replaced as a whole or stays as it was.

use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Name of a file that is being written: this, some letters of chance, and [`SUFFIX`].
const PREFIX: &str = ".binade-";
const SUFFIX: &str = ".partial";

/// Writes a file under a name of its own in the same folder, and gives it the name `path` when it is whole and on the
/// disk. On an error, or if the process ends, the old file stays as it was. Any number of threads and processes may
/// replace files of one folder, and even one file: it is then the whole of what one of them wrote. A link is followed.
/// What is no file, as a terminal or a pipe, is written to.
///
/// # Errors
/// The folder or the disk refuses, or `write` does.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let old = std::fs::metadata(path).ok();
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        return write(&mut file);
    }
    let target = if old.is_some() { std::fs::canonicalize(path)? } else { path.to_path_buf() };
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // A new file has the permissions that any file has; those of temporary files are for their owner alone.
    #[cfg(unix)]
    let fresh = || std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(old.map_or_else(fresh, |old| old.permissions()));
    let partial = builder.tempfile_in(folder)?;
    let mut file = BufWriter::new(partial.as_file());
    write(&mut file)?;
    file.flush()?;
    drop(file);
    partial.as_file().sync_all()?;
    partial.persist(target)?;
    Ok(())
}

/// Removes what processes that were killed while they wrote have left in a folder. To be called where nobody else
/// writes there.
///
/// # Errors
/// The folder cannot be read, or a file not removed.
pub fn remove_partial_files(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_that_differ_in_their_extension_alone_are_replaced_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["model.best", "model.last", "model", ".partial", "model.partial"];
        std::thread::scope(|scope| {
            for (i, name) in names.into_iter().enumerate() {
                let path = folder.path().join(name);
                scope.spawn(move || {
                    for _ in 0..20 {
                        replace_file(&path, |file| file.write_all(&vec![i as u8; 1 << 16])).unwrap();
                    }
                });
            }
        });
        for (i, name) in names.into_iter().enumerate() {
            assert!(std::fs::read(folder.path().join(name)).unwrap() == vec![i as u8; 1 << 16], "{name}");
        }
        assert_eq!(self::names(folder.path()).len(), names.len());
    }

    #[test]
    fn one_file_written_by_many_is_the_whole_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        std::thread::scope(|scope| {
            for i in 0..4u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        replace_file(path, |file| file.write_all(&[i; 5000])).unwrap();
                        let seen = std::fs::read(path).unwrap();
                        assert!(seen.len() == 5000 && seen.iter().all(|b| *b == seen[0]));
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["summary.json"]);
    }

    #[test]
    fn an_error_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        replace_file(&path, |file| file.write_all(b"old")).unwrap();
        let failed = replace_file(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::other("no"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(
            (std::fs::read(&path).unwrap(), names(folder.path())),
            (b"old".to_vec(), vec!["weights".to_string()])
        );
    }

    #[test]
    fn leftovers_of_killed_writers_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".binade-x7Tq.partial", "a.partial", ".binade-notes"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        remove_partial_files(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [".binade-notes", "a.partial"]);
    }

    /// Links stay links, devices devices, and permissions as they were.
    #[cfg(unix)]
    #[test]
    fn what_is_written_keeps_its_kind() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("far"), folder.path().join("near"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        replace_file(&file, |file| file.write_all(b"1")).unwrap();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        assert_eq!(mode(&file), mode(&folder.path().join("plain")));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("far", &link).unwrap();
        replace_file(&link, |file| file.write_all(b"2")).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((std::fs::read(&file).unwrap(), mode(&file)), (b"2".to_vec(), 0o600));
        replace_file(Path::new("/dev/null"), |file| file.write_all(b"3")).unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
