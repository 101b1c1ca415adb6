import { link, open, readFile, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { DiskError, asError, ifThere, syncDirectory, systemCode, systemRandom } from '../base/index.ts'

/**
 * The content of a small secret file, made with mode 0600 if it is not there. Making is atomic and durable: the file
 * is written under another name, synced, and linked into place, so it is never seen half-written, and of two
 * processes that start at once both end up with the same one. Throws DiskError.
 */
export async function readOrCreateSecret (path: string, make: () => Promise<Uint8Array> | Uint8Array): Promise<Uint8Array> {
  try {
    const found = await ifThere(readFile(path))
    if (found !== undefined) return found
    await create(path, await make())
    return await readFile(path)
  } catch (error) {
    throw new DiskError(`${path} could not be read or made: ${asError(error).message}`, { cause: error })
  }
}

async function create (path: string, content: Uint8Array): Promise<void> {
  const temporary = `${path}.${Buffer.from(systemRandom.bytes(6)).toString('hex')}.new`
  const file = await open(temporary, 'wx', 0o600)
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
  try {
    await link(temporary, path)
    await syncDirectory(dirname(path))
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error // another process was first; its content counts
  } finally {
    await unlink(temporary)
  }
}
