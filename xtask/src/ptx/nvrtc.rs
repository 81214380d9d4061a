//! NVRTC, opened when it is needed: the build has no part in it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use libloading::{Library, Symbol};

type Program = *mut c_void;
type Names = *const *const c_char;
type Create = unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, Names, Names) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, Names) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

pub struct Nvrtc(Library);

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| "a source with a byte 0".into())
}

impl Nvrtc {
    pub fn open(path: &Path) -> Result<Nvrtc, String> {
        // SAFETY: initialisers of NVIDIA's library have no requirements.
        unsafe { Library::new(path) }.map(Nvrtc).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn function<T>(&self, name: &str) -> Result<Symbol<'_, T>, String> {
        // SAFETY: callers ask for the types that NVIDIA documents for these names.
        unsafe { self.0.get(name.as_bytes()) }.map_err(|e| format!("{name}: {e}"))
    }

    /// The PTX of a source. Arithmetic is not contracted, and lines of the source are kept.
    pub fn compile(
        &self,
        name: &str,
        source: &str,
        headers: &[(String, String)],
        architecture: &str,
    ) -> Result<String, String> {
        let (source, file) = (c_string(source)?, c_string(name)?);
        let texts = headers.iter().map(|(_, text)| c_string(text)).collect::<Result<Vec<_>, _>>()?;
        let names = headers.iter().map(|(name, _)| c_string(name)).collect::<Result<Vec<_>, _>>()?;
        let architecture = format!("--gpu-architecture={architecture}");
        let options = [architecture.as_str(), "--fmad=false", "-lineinfo", "-diag-suppress=177"];
        let options = options.into_iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (texts, names, options) = (pointers(&texts), pointers(&names), pointers(&options));
        let mut program: Program = std::ptr::null_mut();
        let create: Symbol<'_, Create> = self.function("nvrtcCreateProgram")?;
        let compile: Symbol<'_, Compile> = self.function("nvrtcCompileProgram")?;
        let destroy: Symbol<'_, Destroy> = self.function("nvrtcDestroyProgram")?;
        let count = headers.len() as c_int;
        // SAFETY: all strings end in 0 and live until the call returns; the counts are those of the lists.
        let made =
            unsafe { create(&mut program, source.as_ptr(), file.as_ptr(), count, texts.as_ptr(), names.as_ptr()) };
        if made != 0 {
            return Err(format!("{name}: NVRTC error {made}"));
        }
        // SAFETY: the program was made above; as above for the options.
        let done = unsafe { compile(program, options.len() as c_int, options.as_ptr()) };
        let log = self.text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?;
        let ptx = if done == 0 {
            self.text(program, "nvrtcGetPTXSize", "nvrtcGetPTX")
        } else {
            Err(format!("{name}: NVRTC error {done}\n{log}"))
        };
        // SAFETY: the program was made above and is not used again.
        unsafe { destroy(&mut program) };
        ptx
    }

    /// A text that a program has, by the functions that give its size and itself.
    fn text(&self, program: Program, size: &str, get: &str) -> Result<String, String> {
        let (size, get): (Symbol<'_, Size>, Symbol<'_, Text>) = (self.function(size)?, self.function(get)?);
        let mut bytes = 0usize;
        // SAFETY: the program lives.
        if unsafe { size(program, &mut bytes) } != 0 {
            return Err("NVRTC has no text".into());
        }
        let mut text = vec![0u8; bytes.max(1)];
        // SAFETY: there is room for as many bytes as it said.
        if unsafe { get(program, text.as_mut_ptr().cast()) } != 0 {
            return Err("NVRTC has no text".into());
        }
        let text = CStr::from_bytes_until_nul(&text).map_err(|e| e.to_string())?;
        Ok(text.to_string_lossy().into_owned())
    }
}
