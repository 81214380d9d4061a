//! Data sets: files that are missing, torn or foreign, folders of images, what is done to an image.

mod files;
mod folder;
mod pixels;
