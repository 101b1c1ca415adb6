import { resolve } from 'node:path'
import { environmentLayer, flagLayer, readConfigFile, resolveConfig, type Config, type Layer } from './config.ts'

export interface ConfigOptions {
  config?: string
  listen?: string[]
  set?: string[]
  label?: string[]
}

/** What flags, environment and file say together. Throws ConfigError. */
export async function loadConfig (options: ConfigOptions, env: Record<string, string | undefined>): Promise<Config> {
  const layers: Layer[] = []
  const file = options.config ?? (env.SHOAL_CONFIG === '' ? undefined : env.SHOAL_CONFIG)
  if (file !== undefined) layers.push(await readConfigFile(resolve(file)))
  layers.push(environmentLayer(env), flagLayer(options))
  return resolveConfig(layers)
}
