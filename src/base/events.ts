/**
 * A typed event emitter over plain functions. A listener that throws does not stop the others: the error goes to
 * `onError`, because events are told after the fact and nobody who emits can mend a listener.
 */
export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<(detail: never) => void>>()
  readonly #onError: (error: unknown) => void

  constructor (onError: (error: unknown) => void = error => { queueMicrotask(() => { throw error }) }) {
    this.#onError = onError
  }

  /** Returns the function that takes the listener away again. */
  on<K extends keyof Events> (name: K, listener: (detail: Events[K]) => void): () => void {
    let set = this.#listeners.get(name)
    if (set === undefined) this.#listeners.set(name, set = new Set())
    set.add(listener)
    return () => { set.delete(listener) }
  }

  emit<K extends keyof Events> (name: K, detail: Events[K]): void {
    for (const listener of Array.from(this.#listeners.get(name) ?? [])) {
      try { (listener as (detail: Events[K]) => void)(detail) } catch (error) { this.#onError(error) }
    }
  }

  listenerCount (name: keyof Events): number { return this.#listeners.get(name)?.size ?? 0 }
}
