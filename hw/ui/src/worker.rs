//! Threads that end with what they work for: [`Worker`].

use std::thread::JoinHandle;

/// A thread. Its drop waits for the end, unless the thread itself drops it; who owns it says before that it shall end.
pub(crate) struct Worker(Option<JoinHandle<()>>);

impl Worker {
    pub fn start(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<Worker> {
        std::thread::Builder::new().name(name.into()).spawn(run).map(|thread| Worker(Some(thread)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // It ends by itself; a panic in it was reported by its hook.
            let _ = thread.join();
        }
    }
}
