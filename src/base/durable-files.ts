import { open, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Replaces `path` by these bytes: after a power cut it holds the old ones or the new ones. One writer at a time. Throws the
 * system's error.
 */
export async function writeDurably (path: string, chunks: Uint8Array | Iterable<Uint8Array>, { mode = 0o666 }: { mode?: number } = {}): Promise<void> {
  const temporary = `${path}.new`
  try {
    const handle = await open(temporary, 'w', mode)
    try {
      for (const chunk of chunks instanceof Uint8Array ? [chunks] : chunks) await handle.writeFile(chunk)
      await handle.datasync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await unlink(temporary).catch(() => undefined)
    throw error
  }
  await syncDirectory(dirname(path))
}

/** Makes created, renamed and removed names of a directory durable. */
export async function syncDirectory (path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
