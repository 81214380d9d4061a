//! [`Form`]: what a file or a folder holds, told by names.

use std::path::Path;

use crate::images::Dataset;
use crate::{Error, Result};

/// The form of data in a file or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Images with classes, in files of this data set's layout. MNIST stands for all that are laid out so.
    Images(Dataset),
    /// A text.
    Text,
    /// Tokens of nanoGPT or llm.c: a file, or a folder with two.
    Tokens,
}

impl Form {
    /// The form of what is there; whether that is whole is not looked at.
    ///
    /// # Errors
    /// There is nothing, or nothing that has such a form.
    pub fn of(path: &Path) -> Result<Form> {
        let is_folder = std::fs::metadata(path).map_err(Error::io(path))?.is_dir();
        if !is_folder {
            return Ok(if path.extension().is_some_and(|end| end == "bin") { Form::Tokens } else { Form::Text });
        }
        let entries = std::fs::read_dir(path).map_err(Error::io(path))?;
        let (mut forms, mut folders) = (Vec::new(), 0);
        // Tokens for evaluation are in `val.bin`.
        if path.join("train.bin").exists() && path.join("test.bin").exists() {
            forms.push(Form::Images(Dataset::Cifar100));
        }
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            folders += usize::from(entry.path().is_dir());
            forms.extend(match name.as_str() {
                "train.bin" => Some(Form::Tokens),
                _ if name.starts_with("data_batch_") && name.ends_with(".bin") => Some(Form::Images(Dataset::Cifar10)),
                _ if name.starts_with("train-images") => Some(Form::Images(Dataset::Mnist)),
                _ => None,
            });
        }
        match forms.first() {
            Some(form) => Ok(*form),
            None if folders > 0 => Ok(Form::Images(Dataset::Folder)),
            None => Err(Error::Data {
                path: path.into(),
                expected: "data_batch_1.bin of CIFAR-10, train.bin and test.bin of CIFAR-100, \
                           train-images-idx3-ubyte of MNIST and its kin, train.bin of nanoGPT or llm.c, or a folder \
                           of images for each class"
                    .into(),
                found: "none of these".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_recognised_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, expected) in [
            ("c/data_batch_1.bin", Form::Images(Dataset::Cifar10)),
            ("m/train-images-idx3-ubyte.gz", Form::Images(Dataset::Mnist)),
            ("f/cats/1.png", Form::Images(Dataset::Folder)),
            ("t/train.bin", Form::Tokens),
            ("t/test.bin", Form::Images(Dataset::Cifar100)),
        ] {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), "").unwrap();
            assert_eq!(Form::of(&path(&name[..1])).unwrap(), expected);
        }
        assert_eq!(Form::of(&path("t/train.bin")).unwrap(), Form::Tokens);
        assert_eq!(Form::of(&path("f/cats/1.png")).unwrap(), Form::Text);
        assert!(Form::of(&path("f/cats")).unwrap_err().to_string().contains("none of these"));
        assert!(matches!(Form::of(&path("nowhere")), Err(Error::Io { .. })));
    }
}
