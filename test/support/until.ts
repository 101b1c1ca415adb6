import assert from 'node:assert/strict'

/** Looks again and again, and fails after twenty seconds. */
export async function until (what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!await holds()) {
    assert.ok(Date.now() < deadline, what)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}
