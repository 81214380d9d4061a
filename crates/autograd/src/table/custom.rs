//! Users' operators.

use binade_tensor::Meta;
use binade_tensor::op::{Builder, Custom};

use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::value::Value;

impl Row for Custom {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::ALL_INPUTS.and_outputs(&[0])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let mut values = vec![g];
        for i in 0..c.metas.len() {
            values.push(c.input(i)?.clone());
        }
        values.push(c.output(0)?.clone());
        let metas: Vec<Meta> = values.iter().map(|v| v.array().meta()).collect();
        let mut builder = Builder::new(&metas);
        let ins: Vec<_> = (0..c.metas.len()).map(|i| builder.input(i + 1)).collect();
        let (upstream, out) = (builder.input(0), builder.input(metas.len() - 1));
        let wanted = self.backward(&mut builder, upstream, &ins, out)?;
        let program = builder.finish(&wanted.iter().flatten().copied().collect::<Vec<_>>());
        let mut found = program.run(&values, |op, ins, want| c.run(op.clone(), ins, want))?.into_iter();
        let mut grads = Grads::<V>::new();
        for i in 0..c.metas.len() {
            let gradient = if wanted.get(i).is_some_and(Option::is_some) { found.next() } else { None };
            grads.push(match gradient {
                Some(gradient) if c.needs[i] => Some(c.fit(gradient, i)?),
                Some(_) | None => None,
            });
        }
        Ok(grads)
    }
}
