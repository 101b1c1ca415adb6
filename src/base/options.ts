/** Accepted by everything that waits. */
export interface AbortOptions {
  signal?: AbortSignal
}

/** Accepted by everything that takes long. `onProgress` must not throw and is called at most as often as something changed. */
export interface ProgressOptions<Event> {
  onProgress?: (event: Event) => void
}
