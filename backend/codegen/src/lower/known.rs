//! What is known, inside a block, of the origin of values and of what variables hold.

use std::collections::HashMap;
use tulk_ir::Value;

/// A fact of type `T` about some of the block's values and variables. Facts follow `get` and `set`.
pub struct Known<T> {
    values: HashMap<Value, T>,
    vars: HashMap<usize, T>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known { values: HashMap::new(), vars: HashMap::new() }
    }
}

impl<T: Copy> Known<T> {
    /// Forgets everything: another block starts.
    pub fn clear(&mut self) {
        self.values.clear();
        self.vars.clear();
    }
    pub fn note(&mut self, value: Value, fact: T) {
        self.values.insert(value, fact);
    }
    pub fn of(&self, value: Value) -> Option<T> {
        self.values.get(&value).copied()
    }
    /// The variable changes without a `set`.
    pub fn forget(&mut self, var: usize) {
        self.vars.remove(&var);
    }
    pub fn set(&mut self, var: usize, value: Value) {
        match self.of(value) {
            Some(fact) => {
                self.vars.insert(var, fact);
            }
            None => self.forget(var),
        }
    }
    pub fn get(&mut self, var: usize, value: Value) {
        if let Some(&fact) = self.vars.get(&var) {
            self.note(value, fact);
        }
    }
}
