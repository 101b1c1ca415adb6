import { PAGE_BYTES } from '../base/index.ts'

/** Kept at once, 2 MiB at most. A load that writes run after run needs one or two for each run. */
const EDGES_MAX = 512

/** Bytes of a page that a block shares with a neighbour. `offset` in the file. */
export interface Edge { readonly offset: number, readonly bytes: Uint8Array }

/**
 * The ragged edges of blocks whose neighbours have not come yet. Blocks mostly come in runs: the neighbour that completes the
 * page takes the edge along in its own direct write, and a block costs one write instead of three. What no neighbour has
 * come for is written when its file is synced. Knows nothing of how anything is written.
 */
export class Edges {
  readonly #edges = new Map<string, Map<number, Edge>>()
  /** Writes under way that took edges of others along. */
  readonly #carriers = new Map<string, Set<Promise<unknown>>>()
  #count = 0

  get count (): number { return this.#count }

  /** Keeps a copy; false: there are too many. */
  keep (path: string, offset: number, bytes: Uint8Array): boolean {
    if (this.#count >= EDGES_MAX) return false
    this.#put(path, { offset, bytes: bytes.slice() })
    return true
  }

  /** What is kept of exactly these bytes, less than a page of them. */
  take (path: string, offset: number, end: number): Edge | undefined {
    const edges = this.#edges.get(path)
    const edge = edges?.get(offset)
    if (edges === undefined || edge === undefined || edge.bytes.length !== end - offset || edge.bytes.length >= PAGE_BYTES) return undefined
    this.#drop(path, edges, offset)
    return edge
  }

  takeAll (path: string): Edge[] {
    const edges = [...this.#edges.get(path)?.values() ?? []]
    this.forget(path)
    return edges
  }

  forget (path: string): void {
    this.#count -= this.#edges.get(path)?.size ?? 0
    this.#edges.delete(path)
  }

  /** Until `writing` is over the edges it took along are not on disk; if it fails they are here again. */
  carry (path: string, writing: Promise<unknown>, taken: readonly Edge[]): void {
    const carriers = this.#carriers.get(path) ?? new Set()
    this.#carriers.set(path, carriers.add(writing))
    const over = (): void => {
      carriers.delete(writing)
      if (carriers.size === 0 && this.#carriers.get(path) === carriers) this.#carriers.delete(path)
    }
    writing.then(over, () => {
      for (const edge of taken) this.#put(path, edge)
      over()
    })
  }

  /** The writes under way that carry edges of this file. */
  carriers (path: string): Array<Promise<unknown>> { return [...this.#carriers.get(path) ?? []] }

  #put (path: string, edge: Edge): void {
    const edges = this.#edges.get(path) ?? new Map<number, Edge>()
    if (!edges.has(edge.offset)) this.#count++
    this.#edges.set(path, edges.set(edge.offset, edge))
  }

  #drop (path: string, edges: Map<number, Edge>, offset: number): void {
    edges.delete(offset)
    this.#count--
    if (edges.size === 0) this.#edges.delete(path)
  }
}
