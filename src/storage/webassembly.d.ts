// The one part of WebAssembly used here; the `es` libs of TypeScript leave it to `dom`.
declare namespace WebAssembly {
  class Memory {
    constructor (descriptor: { initial: number, maximum: number, shared?: boolean })
    readonly buffer: ArrayBufferLike
  }
}
