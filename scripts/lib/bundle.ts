import { mkdir, rename, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

/** A path of the checkout. */
export const at = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/**
 * Writes programs in a few files each: resolving and reading a thousand small ones is most of the start of a process.
 * `directory` is two levels below a package.json, as the sources are, because they look for it from where they are; the
 * hash threads lie beside them. Native packages stay where they are installed.
 */
export async function bundle (programs: Record<string, string>, directory: string): Promise<void> {
  const { outputFiles } = await build({
    entryPoints: { ...programs, 'sha256-worker': at('src/node/sha256-worker.ts'), 'hash-worker': at('src/transfer/hash-worker.ts'), 'lane-thread': at('src/transfer/lanes/lane-thread.ts') },
    bundle: true,
    // What a command does not need is not read.
    splitting: true,
    write: false,
    outdir: directory,
    platform: 'node',
    format: 'esm',
    external: ['classic-level', '@napi-rs/blake-hash'],
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" }
  })
  await mkdir(directory, { recursive: true })
  for (const { path, contents } of outputFiles) {
    // Others may build or start it right now.
    await writeFile(`${path}.${process.pid}`, contents)
    await rename(`${path}.${process.pid}`, path)
  }
}

/** The command line, as an installed package runs it (src/cli/bin.js). */
export async function bundleCli (directory: string): Promise<void> {
  await bundle({ main: at('src/cli/main.ts') }, directory)
}
