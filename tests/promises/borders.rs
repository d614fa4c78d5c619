//! Safe code that lies to the engine gets an error, never undefined behavior.
