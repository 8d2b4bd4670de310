//! The network of a model. It takes its memory only while images need it, and comes back as it was.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::time::Instant;
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;

use super::settings::Input;

/// A network that has been loaded once.
pub(super) struct Network {
    input: Input,
    state: Mutex<State>,
}

struct State {
    loaded: Option<Arc<TypedRunnableModel>>,
    /// When it was loaded or asked last.
    needed_at: Instant,
    /// Where it comes back from; without it, it stays.
    kept: Option<Kept>,
}

/// The ONNX file that a network was made of.
pub(super) enum Kept {
    /// A part of the program.
    Bundled(&'static [u8]),
    /// A copy without a name: nobody can change it, and it goes with the process.
    Copy(File),
}

impl Kept {
    /// A copy of an ONNX file in a directory.
    pub(super) fn copy(onnx: &[u8], directory: &std::path::Path) -> io::Result<Self> {
        let mut file = tempfile::tempfile_in(directory)?;
        io::Write::write_all(&mut file, onnx)?;
        Ok(Self::Copy(file))
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Bundled(onnx) => Ok(onnx.to_vec()),
            Self::Copy(file) => {
                let mut onnx = Vec::new();
                file.seek(SeekFrom::Start(0))?;
                file.read_to_end(&mut onnx)?;
                Ok(onnx)
            }
        }
    }
}

impl Network {
    /// Loads the network of an ONNX file that takes such an input.
    pub(super) fn load(onnx: &[u8], input: &Input) -> TractResult<Self> {
        let loaded = Some(load(onnx, input)?);
        let state = State { loaded, needed_at: Instant::now(), kept: None };
        Ok(Self { input: input.clone(), state: Mutex::new(state) })
    }

    /// Lets it be put away.
    pub(super) fn keep(&self, kept: Kept) {
        self.state().kept = Some(kept);
    }

    /// The network, which is loaded again if it was put away: call it off the runtime. Whoever comes meanwhile waits.
    pub(super) fn get(&self) -> TractResult<Arc<TypedRunnableModel>> {
        let mut state = self.state();
        state.needed_at = Instant::now();
        if let Some(loaded) = &state.loaded {
            return Ok(Arc::clone(loaded));
        }
        let kept = state.kept.as_mut().ok_or_else(|| TractError::msg("nothing was kept of it"))?;
        let onnx =
            kept.read().map_err(|error| TractError::msg(format!("read what was kept of it: {error}")))?;
        let loaded = load(&onnx, &self.input)?;
        let load_ms = state.needed_at.elapsed().as_millis();
        tracing::debug!(load_ms, "network loaded again");
        state.loaded = Some(Arc::clone(&loaded));
        state.needed_at = Instant::now();
        Ok(loaded)
    }

    /// Puts it away when nobody has needed it for so long; says whether it did. Who is using it keeps it as long.
    pub(super) fn put_away(&self, idle: Duration) -> bool {
        let Some(mut state) = self.state_at_once() else { return false };
        let is_due = state.kept.is_some() && state.needed_at.elapsed() >= idle;
        let away = state.loaded.take_if(|_| is_due);
        // Giving back its memory takes a moment, in which an image may come.
        drop(state);
        away.is_some()
    }

    /// Whether it is in memory; not yet while it is being loaded.
    pub(super) fn is_loaded(&self) -> bool {
        self.state_at_once().is_some_and(|state| state.loaded.is_some())
    }

    /// Waits while it is being loaded. A panic while it is locked can only be of a load, which leaves it put away.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing while it is being loaded: for those who must not wait.
    fn state_at_once(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

fn load(onnx: &[u8], input: &Input) -> TractResult<Arc<TypedRunnableModel>> {
    // What the file says of the shapes behind the input is derived again: exporters leave the number of images open.
    let reader = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    let file = reader.proto_model_for_read(&mut &*onnx)?;
    let graph = file.graph.as_ref().ok_or_else(|| TractError::msg("the file holds none"))?;
    if graph.initializer.iter().any(|tensor| tensor.data_location() == DataLocation::External) {
        return Err(TractError::msg(
            "its numbers are in a file of their own; export it as one file, with PyTorch external_data=False",
        ));
    }
    let is_unknown = |name: &&str| !reader.op_register.0.contains_key(*name);
    if let Some(name) = graph.node.iter().map(|node| node.op_type.as_str()).find(is_unknown) {
        return Err(TractError::msg(format!("the operator {name} is not known here; export it without")));
    }
    let model = reader.model_for_proto_model(&file)?;
    check_input(&model, input)?;
    model
        .with_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), input.shape()))?
        .into_optimized()?
        .into_runnable()
}

/// Compares what the file says of its input with what the settings say.
fn check_input(model: &InferenceModel, input: &Input) -> TractResult<()> {
    let [image] = model.input_outlets()? else {
        let count = model.input_outlets()?.len();
        return Err(TractError::msg(format!("it has {count} inputs and must have one, the image")));
    };
    let fact = model.outlet_fact(*image)?;
    if fact.datum_type.concretize().is_some_and(|kind| kind != f32::datum_type()) {
        let kind = &fact.datum_type;
        return Err(TractError::msg(format!(
            "its input is {kind:?} and must be 32-bit floats: export it as such"
        )));
    }
    let sizes: Vec<Option<usize>> =
        fact.shape.dims().map(|size| usize::try_from(size.concretize()?.as_i64()?).ok()).collect();
    let shape = input.shape();
    let fits = |(size, expected): (&Option<usize>, &usize)| size.is_none_or(|size| size == *expected);
    if fact.shape.is_open() || sizes.len() == shape.len() && sizes.iter().zip(&shape).all(fits) {
        return Ok(());
    }
    let show = |size: &Option<usize>| size.map_or("any".to_owned(), |size| size.to_string());
    Err(TractError::msg(format!(
        "its input is {}, and the settings say {}: look at input.width, height, layout and colors",
        sizes.iter().map(show).collect::<Vec<_>>().join(" x "),
        shape.map(|size| size.to_string()).join(" x ")
    )))
}
