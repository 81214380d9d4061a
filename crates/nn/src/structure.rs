//! Where a running module is in its model, by the model's structure: what holds it under which name. Nothing else
//! decides, not what ran before and not who gave names.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use binade_autograd::{Layers, LeafId, Name, Place, Structure, scope};

use crate::Param;
use crate::visitor::{Part, Visitor};

/// Goes through the module in question.
type Walk<'a> = &'a dyn Fn(&mut Visitor<'_>);

/// Where a module is that begins to run.
pub enum Entered {
    /// It has nothing of its own, and belongs to whoever runs it.
    Nowhere,
    /// A layer of the model that runs.
    Layer(Place),
    /// It is the model itself.
    Model(Arc<Structure>),
}

impl Entered {
    /// Runs `f` there.
    pub(crate) fn run<T>(self, f: impl FnOnce() -> T) -> T {
        match self {
            Entered::Nowhere => f(),
            Entered::Layer(place) => scope::within(&place, f),
            Entered::Model(structure) => scope::within_model(&structure, f),
        }
    }
}

/// Finds the module at this address, of this type: in the model that runs, or as a model of its own.
pub(crate) fn enter(address: usize, kind: TypeId, walk: Walk<'_>) -> Entered {
    let layer = scope::in_model(|model, here| {
        if let Some(layer) = model.at(address, kind, here) {
            return Some(Entered::Layer(layer.clone()));
        }
        // Made while the model runs, a clone or a wrapper: known by its first parameter.
        let Some(first) = first_param(walk) else { return Some(Entered::Nowhere) };
        let layer = model.like(first.id(), kind).or_else(|| model.holder(first.id()))?;
        Some(Entered::Layer(layer.clone()))
    });
    layer.flatten().unwrap_or_else(|| model(address, kind, walk))
}

/// The module as a model of its own.
fn model(address: usize, kind: TypeId, walk: Walk<'_>) -> Entered {
    thread_local! {
        static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
    }
    /// More models than take turns on a thread.
    const MOST: usize = 16;
    KNOWN.with_borrow_mut(|known| {
        let is = |model: &Known| matches!(model.parts.first(), Some(Step::Module(a, k)) if (*a, *k) == (address, kind));
        let at = known.iter().position(is);
        if let Some(at) = at {
            if known[at].still_is(walk) {
                return Entered::Model(known[at].structure.clone());
            }
            known.remove(at);
        }
        let Some(new) = Known::new(walk) else { return Entered::Nowhere };
        if known.len() == MOST {
            known.remove(0);
        }
        let structure = new.structure.clone();
        known.push(new);
        Entered::Model(structure)
    })
}

fn first_param(walk: Walk<'_>) -> Option<Param> {
    let mut first = None;
    walk(&mut Visitor::unnamed(&mut |_, part| match part {
        Part::Param(param) => {
            first = Some(param.clone());
            ControlFlow::Break(())
        }
        Part::Module(..) | Part::End | Part::Buffer(_) | Part::Mode(_) => ControlFlow::Continue(()),
    }));
    first
}

/// A part that decides about the structure.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Module(usize, TypeId),
    End,
    Param(LeafId),
}

impl Step {
    fn new(part: &Part<'_>) -> Option<Step> {
        match part {
            Part::Module(address, kind) => Some(Step::Module(*address, *kind)),
            Part::End => Some(Step::End),
            Part::Param(param) => Some(Step::Param(param.id())),
            Part::Buffer(_) | Part::Mode(_) => None,
        }
    }
}

/// A structure, and what it was made from.
struct Known {
    parts: Vec<Step>,
    /// The name of the first parameter then: of what larger whole the model is a part.
    named: Place,
    structure: Arc<Structure>,
}

impl Known {
    /// Whether the module still has these parts: one walk, which allocates nothing.
    fn still_is(&self, walk: Walk<'_>) -> bool {
        let (mut parts, mut same, mut first) = (self.parts.iter(), true, true);
        walk(&mut Visitor::unnamed(&mut |_, part| {
            if let Part::Param(param) = &part
                && std::mem::take(&mut first)
            {
                same &= param.is_named(&self.named);
            }
            same &= Step::new(&part).is_none_or(|step| parts.next() == Some(&step));
            if same { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }));
        same && parts.next().is_none()
    }

    /// `None` for a module without parameters.
    fn new(walk: Walk<'_>) -> Option<Known> {
        let (mut parts, mut paths, mut first) = (Vec::new(), Vec::new(), None);
        walk(&mut Visitor::new(&mut |name, part| {
            if let Part::Param(param) = &part
                && first.is_none()
            {
                first = Some((param.named(), param.place_above(name)));
            }
            parts.extend(Step::new(&part));
            if let Part::Module(..) = part {
                paths.push(name.to_string());
            }
            ControlFlow::Continue(())
        }));
        let (named, whole) = first?;
        let places = places(&paths, whole.as_ref().map_or(&[], |whole| whole.names()));
        let (mut structure, mut places) = (Structure::default(), places.into_iter());
        // The modules around, each with whether its first parameter is known.
        let mut around: Vec<(usize, TypeId, bool)> = Vec::new();
        for step in &parts {
            match *step {
                Step::Module(address, kind) => {
                    let layer = structure.push(address, kind, places.next()?);
                    around.push((layer, kind, false));
                }
                Step::End => drop(around.pop()),
                Step::Param(leaf) => {
                    if let Some((holder, ..)) = around.last() {
                        structure.holds(*holder, leaf);
                    }
                    for (layer, kind, begun) in &mut around {
                        if !std::mem::replace(begun, true) {
                            structure.begins_with(*layer, *kind, leaf);
                        }
                    }
                }
            }
        }
        Some(Known { parts, named, structure: Arc::new(structure) })
    }
}

/// The layers with these paths inside a model, which larger wholes perhaps name.
fn places(paths: &[String], wholes: &[Name]) -> Vec<Place> {
    let joined = |above: &str, path: &str| -> Arc<str> {
        match (above.is_empty(), path.is_empty()) {
            (true, _) => Arc::from(path),
            (_, true) => Arc::from(above),
            (false, false) => Arc::from(format!("{above}.{path}")),
        }
    };
    // One layer alone says nothing of the model that it is meant for.
    let own = (paths.len() > 1).then(|| Name { path: Arc::from(""), model: layers(paths.iter().map(String::as_str)) });
    let wholes = if wholes.is_empty() { own.as_slice() } else { wholes };
    let place = |path: &String| {
        let name = |whole: &Name| Name { path: joined(&whole.path, path), model: whole.model.clone() };
        Place::new(wholes.iter().map(name).collect(), None)
    };
    paths.iter().map(place).collect()
}

/// All layers of a model that has layers at these paths, and what holds them.
pub(crate) fn layers<'a>(paths: impl Iterator<Item = &'a str>) -> Layers {
    let above = |path: &'a str| path.match_indices('.').map(move |(dot, _)| &path[..dot]).chain([path]);
    let all: BTreeSet<&str> = paths.filter(|path| !path.is_empty()).flat_map(above).collect();
    all.into_iter().map(Arc::from).collect()
}
