export interface UntilOptions {
  withinMs?: number
  everyMs?: number
  /** What else to say when it fails: how things are by then. */
  detail?: () => string
}

/** Looks again and again until it holds, and fails with `what` when it does not in time. */
export async function until (what: string, holds: () => boolean | Promise<boolean>, { withinMs = 20_000, everyMs = 10, detail = () => '' }: UntilOptions = {}): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!await holds()) {
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}${detail()}`)
    await new Promise(resolve => { setTimeout(resolve, everyMs) })
  }
}
