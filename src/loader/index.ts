/**
 * What an inference process imports: asks the daemon of this machine for a model and reads it, also while it loads.
 *
 *     import { open } from 'shoal/loader'
 *
 *     await using model = await open(cid, { onProgress: ({ bytesDone, bytesTotal }) => draw(bytesDone / bytesTotal) })
 *     const embedding = await model.tensor('model.embed_tokens.weight')   // as soon as its own blocks are here
 *     const directory = await model.path()                               // when everything is
 *
 * Bytes are read straight from the daemon's files. Nothing heavy is imported: it starts in milliseconds.
 */
import { ApiClient } from '../api/client.ts'
import { defaultSocketPath } from '../api/paths.ts'
import { LoadedModel } from './loaded-model.ts'
import type { OpenOptions, OpenedModel } from './types.ts'

export type { Tensor } from '../model/types.ts'
export type { LoadProgress, LoadResult } from '../node/types.ts'
export type { LocatedTensor, TensorArray, TensorData } from './tensor-data.ts'
export type { ModelFile, OpenOptions, OpenedModel } from './types.ts'
export { ShoalError } from '../base/index.ts'

/**
 * Opens a model by its CID and starts to load what is missing. Resolves when its files are known, at once for a model
 * that is here. Throws DaemonUnreachableError, InvalidCidError, NoProviderError, AbortError, and other ShoalErrors as
 * the daemon throws them.
 */
export async function open (cid: string, options: OpenOptions = {}): Promise<OpenedModel> {
  const client = new ApiClient({ socketPath: options.socket ?? defaultSocketPath() })
  return await LoadedModel.open(client, cid, options)
}
