//! What `run`'s image argument stands for: an image is pulled when it is not here.

use paddock_agent::api::Root;
use paddock_images::{Limits, Reference, Registries, Store};

use super::{
    Recipe,
    flags::{Fetch, From},
};
use crate::commands::{Context, images};

impl Recipe {
    pub(super) fn root(&self, context: &Context) -> anyhow::Result<Root> {
        let reference = match &self.image.from {
            From::Host => return Ok(Root::Host),
            From::Directory(path) => return Ok(Root::Directory(path.clone())),
            From::Image(reference) => reference,
        };
        // A file may be another than it was; what of it is here already is not read again.
        let is_file = !matches!(reference, Reference::Registry(_));
        if self.pull == Fetch::Never || (self.pull == Fetch::Missing && !is_file) {
            if let Some(image) = Store::at(&context.data_dir).find(&self.image.typed)? {
                return Ok(Root::Image(image.id));
            }
            if self.pull == Fetch::Never {
                return Err(paddock_images::Error::NotFound {
                    name: self.image.typed.clone(),
                }
                .into());
            }
        }
        let pulled = images::fetch(context, reference, Registries::default(), Limits::default())?;
        Ok(Root::Image(pulled.id))
    }
}
