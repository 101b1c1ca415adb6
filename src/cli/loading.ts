import { AbortError } from '../base/index.ts'
import type { LoadOptions, LoadProgress, LoadResult, OpenFile } from '../node/types.ts'
import type { Context } from './context.ts'
import type { ProgressUpdate } from './progress.ts'

/** Loads a model and shows how far it is. `goOn` is the command that a user who interrupts it goes on with. */
export async function load (context: Context, cid: string, { include, order, goOn }: Pick<LoadOptions, 'include' | 'order'> & { goOn: string }): Promise<{ result: LoadResult, files: OpenFile[] }> {
  const progress = context.progress('loading')
  let files: OpenFile[] = []
  try {
    const result = await context.client.load(cid, {
      include, order, signal: context.signal,
      onProgress: now => { progress.update(shown(now)) },
      onFiles: message => { files = message.files.filter(file => file.wanted) }
    })
    return { result, files }
  } catch (error) {
    if (context.signal.aborted) throw new AbortError(`interrupted; what has arrived is kept, go on with: ${goOn}`, { cause: error })
    throw error
  } finally {
    progress.stop()
  }
}

function shown ({ phase, bytesDone, bytesTotal, rate, peers, secondsLeft }: LoadProgress): ProgressUpdate {
  return { bytesDone, bytesTotal, rate, peers, secondsLeft, waiting: phase === 'finding' ? 'looking for a provider' : undefined }
}
