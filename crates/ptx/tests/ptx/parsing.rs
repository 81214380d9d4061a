//! What is read, and what is refused by name and line.

use binade_ptx::{Arg, Device, Error, Launch, Module, Options};

use crate::common::module;

fn load(text: &str) -> Result<(), Error> {
    Device::new(Options::default()).load(&Module::parse(text)?).map(|_| ())
}

#[test]
fn unknown_forms_are_refused_by_name_and_line() {
    for (form, reason) in [
        ("frobnicate.u32 %r0, %r1;", "opcode"),
        ("add.rn.u32 %r0, %r1, %r1;", "rn"),
        ("add.s32.wild %r0, %r1, %r1;", "wild"),
        ("fma.f32 %f0, %f0, %f0, %f0;", "rounding"),
        ("setp.lo.s32 %p0, %r0, %r0;", "comparison"),
        ("cvt.f16.f32 %h0, %f0;", "rounding"),
        ("mov.u32 %r0, %clock;", "time"),
        ("tex.2d.v4.f32.f32 {%f0, %f0, %f0, %f0}, [%r0, {%f0, %f0}];", "opcode"),
        ("shfl.idx.b32 %r0, %r0, 0, 31;", "sync"),
    ] {
        let text =
            module("", &format!(".reg .b32 %r<4>; .reg .f32 %f<2>; .reg .b16 %h<2>; .reg .pred %p<2>;\n{form}\nret;"));
        let Err(Error::Unsupported { line, form: named, reason: said }) = load(&text) else {
            panic!("{form} is not refused as unsupported: {:?}", load(&text));
        };
        assert_eq!((line, named.as_str()), (6, form.split(' ').next().unwrap()), "{form}");
        assert!(said.contains(reason), "{form}: {said}");
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    for (statement, said) in [
        ("add.u32 %r0, %r1;", "operands"),
        ("add.u32 %r0, %r1, %x0;", "width"),
        ("add.u32 %r9, %r1, %r1;", "not declared"),
        ("add.u32 %p0, %r1, %r1;", "not a register"),
        ("bra NOWHERE;", "label"),
        ("ld.shared.u32 %r0, [%q];", "not declared"),
        ("setmaxnreg.inc.sync.aligned.u32 41;", "multiple of 8"),
        ("@%r0 mov.u32 %r1, 0;", "not a predicate"),
        ("mov.b64 {%r0, %x1}, %x0;", "width"),
    ] {
        let text = module("", &format!(".reg .b32 %r<4>; .reg .b64 %x<2>; .reg .pred %p<2>;\n{statement}\nret;"));
        match load(&text) {
            Err(e @ Error::Parse { line: 6, .. }) => assert!(e.to_string().contains(said), "{statement}: {e}"),
            other => panic!("{statement}: {other:?}"),
        }
    }
}

#[test]
fn text_that_is_not_ptx_is_refused_with_its_line() {
    for (text, line) in [
        ("", 1),
        (".version 7.0", 1),
        (".version 7.0\n.target sm_80\n.address_size 32", 3),
        (".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k( {", 4),
        (".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\n", 4),
        (".version 7.0\n.target sm_80\n.address_size 64\n#", 4),
        (".version 7.0\n.target sm_80\n.address_size 64\n.global .f32 x = 0f12;", 4),
    ] {
        match Module::parse(text) {
            Err(Error::Parse { line: found, .. } | Error::Unsupported { line: found, .. }) => {
                assert_eq!(found, line, "{text}")
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn launches_that_do_not_fit_are_refused() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64
        .visible .entry k(.param .u64 a, .param .f32 b) .maxntid 64, 1, 1 { ret; }";
    let mut device = Device::new(Options::default());
    let program = device.load(&Module::parse(text).unwrap()).unwrap();
    let kernel = program.kernel("k").unwrap();
    let (a, b): (Arg, Arg) = (0u64.into(), 1f32.into());
    let mut launch =
        |l: Launch, args: &[Arg]| device.launch(&kernel, l, args).map(|r| r.is_clean()).map_err(|e| e.to_string());
    assert_eq!(launch(Launch::linear(1, 64), &[a.clone(), b.clone()]), Ok(true));
    for (l, args, said) in [
        (Launch::linear(1, 65), vec![a.clone(), b.clone()], "1 to 64"),
        (Launch::linear(1, 0), vec![a.clone(), b.clone()], "1 to 64"),
        (Launch::linear(0, 1), vec![a.clone(), b.clone()], "grid"),
        (Launch::linear(1, 1), vec![a.clone()], "2"),
        (Launch::linear(1, 1), vec![a.clone(), 1f64.into()], "4"),
        (Launch { shared: 1 << 20, ..Launch::linear(1, 1) }, vec![a, b], "shared memory"),
    ] {
        let error = launch(l, &args).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    assert!(program.kernel("other").unwrap_err().to_string().contains("the module has k"));
}

#[test]
fn a_module_for_a_newer_device_is_refused() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n";
    let module = Module::parse(text).unwrap();
    let load =
        |capability| Device::new(Options { capability: Some(capability), ..Options::default() }).load(&module).is_ok();
    assert!(load(80) && load(90) && !load(75));
    let exact = Module::parse(&text.replace("sm_80", "sm_90a")).unwrap();
    assert!(Device::new(Options { capability: Some(100), ..Options::default() }).load(&exact).is_err());
}

#[test]
fn memory_is_refused_outside_of_allocations() {
    let mut device = Device::new(Options { memory: 1000, ..Options::default() });
    let a = device.alloc(600).unwrap();
    assert!(matches!(device.alloc(600), Err(Error::OutOfMemory { asked: 600, used: 600, limit: 1000 })));
    assert!(device.write(a + 599, &[1]).is_ok() && device.write(a + 599, &[1, 2]).is_err());
    assert_eq!(device.first_unwritten(a, 600).unwrap(), Some(0));
    device.fill(a, 3, 600).unwrap();
    assert_eq!(device.first_unwritten(a, 600).unwrap(), None);
    assert!(device.free(a + 1).is_err() && device.free(a).is_ok() && device.read(a, &mut [0]).is_err());
    assert_eq!(device.used(), 0);
}
