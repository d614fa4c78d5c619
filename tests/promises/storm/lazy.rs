//! The storm's lazy layers: what they are from the first call on.

use super::plain::Kind;
use super::{Group, Storm};
use neurarch::prelude::*;

impl Storm {
    /// Lets lazy layers of models that were called be what they are now; takes over the numbers that were drawn.
    pub(super) fn settle(&mut self, group: usize) {
        let Group { roots, models, .. } = &mut self.groups[group];
        let called = models.iter_mut().zip(roots).filter(|(model, _)| model.active);
        for (model, root) in called {
            for layer in &mut model.layers {
                let Kind::Lazy { inputs, outputs, bias } = layer.kind else { continue };
                layer.kind = Kind::Linear { inputs, outputs, bias };
                let (most, prefix) = (1.0 / (inputs as f64).sqrt(), layer.path(""));
                for parameter in layer.parameters.iter_mut().filter(|parameter| parameter.waits) {
                    let name = format!("{prefix}{}", parameter.name);
                    let drawn =
                        self.world.module_mut(*root).unwrap().parameter::<f64>(&name).unwrap();
                    let expected = parameter.value.as_ref().map(|value| value.shape());
                    assert_eq!(Some(drawn.shape()), expected, "{name}");
                    assert!(drawn.iter().all(|number| number.abs() <= most), "{name}: {drawn}");
                    assert!(drawn.iter().any(|&number| number != 0.0), "{name}: {drawn}");
                    (parameter.value, parameter.waits) = (Some(drawn), false);
                }
            }
        }
    }
}
