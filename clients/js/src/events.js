// Who listens to what.

export class Events {
  #acts = new Map();

  // Returns the function that ends it.
  on(name, act) {
    const acts = this.#acts.get(name) ?? new Set();
    this.#acts.set(name, acts.add(act));
    return () => acts.delete(act);
  }

  // A listener that fails is reported as any uncaught error is, and takes nothing from the others.
  tell(name, event) {
    for (const act of [...(this.#acts.get(name) ?? [])]) {
      try {
        act(event);
      } catch (exc) {
        queueMicrotask(() => {
          throw exc;
        });
      }
    }
  }
}
