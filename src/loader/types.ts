import type { AbortOptions } from '../base/index.ts'
import type { LoadOptions, LoadProgress, LoadResult } from '../node/types.ts'
import type { LocatedTensor, TensorData } from './tensor-data.ts'

/**
 * `include` and the rest as in `shoal get`. `signal` ends the load as long as it runs; what is complete stays readable. With `onDemand`
 * nothing is fetched, and room made for nothing, but what is read: tensor by tensor, or range by range, in whole blocks of at most 4 MiB.
 */
export interface OpenOptions extends Omit<LoadOptions, 'reserve'> {
  /** The daemon's socket. Default: $SHOAL_API, else $SHOAL_DATA/api.sock, else the XDG data directory's shoal/api.sock. */
  socket?: string
}

/** One file of an open model. */
export interface ModelFile {
  /** Within the model, with `/` between names. */
  readonly path: string
  readonly size: number
  /** Of the whole content, in hex. */
  readonly sha256: string
  /** False when `include` left it out. */
  readonly wanted: boolean
  /** True when all of it is known to be here. */
  readonly complete: boolean
  /**
   * `length` bytes from `offset` on, in a buffer of their own, as soon as they are verified and on disk; the fetch
   * turns to them first. Throws RangeError beyond the file's end, ModelClosedError, AbortError, UsageError for a file
   * that was left out, SourceChangedError, ModelNotFoundError, DiskError, and what ended the load.
   */
  read: (offset: number, length: number, options?: AbortOptions) => Promise<Uint8Array>
}

/** An open model. Close it: it keeps the load going and files open. */
export interface OpenedModel extends AsyncDisposable {
  /** As it was given to `open`. */
  readonly cid: string
  /** Sorted by path. */
  readonly files: readonly ModelFile[]
  /** Resolves when all wanted files are complete; rejects with what ended the load before. On demand it waits for `close`, unless all was here. */
  readonly done: Promise<LoadResult>
  progress: () => LoadProgress
  /**
   * The directory of the complete files, when all wanted ones are; on demand, asks for all of them. Throws UsageError for files
   * that were added in place from several directories, and what ended the load.
   */
  path: (options?: AbortOptions) => Promise<string>
  /** Throws FileNotFoundError. */
  file: (name: string) => ModelFile
  /**
   * The tensors of all wanted safetensors files, by file and offset, as soon as the headers are here. `offset` counts
   * from the start of the file, `shape` in elements. Throws InvalidSafetensorsError, and as `read` does.
   */
  tensors: (options?: AbortOptions) => Promise<LocatedTensor[]>
  /** One tensor, as soon as its blocks are here. Throws TensorNotFoundError, and as `tensors` and `read` do. */
  tensor: (name: string, options?: AbortOptions) => Promise<TensorData>
  /** Ends reads that still wait, leaves the load and closes all files. Idempotent. */
  close: () => Promise<void>
}
