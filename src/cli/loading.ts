import { AbortError } from '../base/index.ts'
import type { LoadOptions, LoadProgress, LoadResult, OpenFile } from '../node/types.ts'
import type { Context } from './context.ts'
import type { ProgressUpdate } from './progress.ts'

export interface LoadInit extends Pick<LoadOptions, 'include' | 'order'> {
  /** The command that a user who interrupts it goes on with. */
  goOn: string
  /** Takes the files while no other load can evict them. Says itself what it means that it was interrupted. */
  take?: ((files: OpenFile[], result: LoadResult) => Promise<void>) | undefined
}

/** Loads a model and shows how far it is. */
export async function load (context: Context, cid: string, { include, order, goOn, take }: LoadInit): Promise<{ result: LoadResult, files: OpenFile[] }> {
  const progress = context.progress('loading')
  let files: OpenFile[] = []
  let taking = false
  try {
    const result = await context.client.load(cid, {
      include, order, signal: context.signal,
      onProgress: now => { progress.update(shown(now)) },
      onFiles: message => { files = message.files.filter(file => file.wanted) },
      whileHeld: take === undefined ? undefined : async result => {
        progress.stop()
        taking = true
        await take(files, result)
      }
    })
    return { result, files }
  } catch (error) {
    if (context.signal.aborted && !taking) throw new AbortError(`interrupted; what has arrived is kept, go on with: ${goOn}`, { cause: error })
    throw error
  } finally {
    progress.stop()
  }
}

function shown ({ phase, bytesDone, bytesTotal, rate, peers, secondsLeft }: LoadProgress): ProgressUpdate {
  return { bytesDone, bytesTotal, rate, peers, secondsLeft, waiting: phase === 'finding' ? 'looking for a provider' : undefined }
}
